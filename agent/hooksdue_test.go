//go:build !sim

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// migration is a service without a manager whose data are in the form of a version. Each version
// saves, migrates and restores them.
type migration struct {
	t    *testing.T
	c    node
	l    state.Layout
	data string // the version in whose form the data are
	// saved are the data that BeforeTrial saved.
	saved string
	// restored is the version that was rolled back, as RolledBack was told last.
	restored string
	fails    map[string]bool // versions whose Kept fails
	kept     []string        // the calls of Kept, but only one after another of the same
}

func newMigration(t *testing.T) *migration {
	c, l, _, _ := alone(t)
	return &migration{t: t, c: c, l: l, data: "1.0.0", fails: map[string]bool{}}
}

// of is the service in a version.
func (m *migration) of(version string) node {
	c := m.c
	c.Version = version
	c.Serve = serves(0)
	c.BeforeTrial = func(context.Context, Change) error { m.saved = m.data; return nil }
	c.RolledBack = func(_ context.Context, u Change) error { m.data, m.restored = m.saved, u.To.String(); return nil }
	c.Kept = func(_ context.Context, u Change) error {
		if call := u.From.String() + " to " + u.To.String(); len(m.kept) == 0 || m.kept[len(m.kept)-1] != call {
			m.kept = append(m.kept, call)
		}
		if m.fails[version] {
			return errors.New("the disk is full")
		}
		m.data = version
		return nil
	}
	return c
}

// runs is a start of a version that runs for a while.
func (m *migration) runs(version string) {
	m.t.Helper()
	_, stop, done := started(m.t, m.of(version))
	time.Sleep(10 * time.Minute)
	synctest.Wait()
	end(m.t, stop, done, nil)
	if res, err := m.l.Read(); err != nil || res.State.Good != release.MustVersion(version) {
		m.t.Errorf("%s was not kept: %+v, %v", version, res.State, err)
	}
}

// swaps begins the trial of a version, which the running one prepares.
func (m *migration) swaps(from, to string) {
	m.t.Helper()
	m.prepares(from, to)
	m.begins(to)
}

// fails is a start on trial that fails, after which the watchdog rolls back.
func (m *migration) failsTrial(version string) {
	m.t.Helper()
	c := m.of(version)
	c.Serve = func(context.Context, *Agent) error { return errors.New("no such port") }
	_, _, done := started(m.t, c)
	if err := <-done; !errors.Is(err, ErrTrialFailed) {
		m.t.Error(err)
	}
	m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
		return state.Revert(s, tr, "no such port", now)
	})
}

func (m *migration) do(change func(state.State, state.Tree, time.Time) (state.State, state.Tree)) {
	m.t.Helper()
	if _, err := m.l.Do(m.t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
		s, tr = change(s, tr, now)
		return s, tr, nil
	}); err != nil {
		m.t.Fatal(err)
	}
}

// want compares the calls of Kept since the last want, and the form of the data.
func (m *migration) want(data string, kept ...string) {
	m.t.Helper()
	same := len(kept) == len(m.kept)
	for i := 0; same && i < len(kept); i++ {
		same = kept[i] == m.kept[i]
	}
	if !same || m.data != data {
		m.t.Errorf("the data are those of %s, want %s; Kept was called for %q, want %q", m.data, data, m.kept, kept)
	}
	m.kept = nil
}

// migrates runs a test of a migration.
func migrates(t *testing.T, name string, test func(m *migration)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(newMigration(t)) })
	})
}

// A Kept that is due stays due, whatever upgrade begins meanwhile, until the data are migrated.
func TestAKeptThatIsDueStaysDue(t *testing.T) {
	kept := func(m *migration) { // 1.1.0, whose Kept fails
		m.fails["1.1.0"] = true
		m.swaps("1.0.0", "1.1.0")
		m.runs("1.1.0")
		m.want("1.0.0", "1.0.0 to 1.1.0")
	}
	migrates(t, "the upgrade fails", func(m *migration) {
		kept(m)
		m.swaps("1.1.0", "1.2.0")
		m.failsTrial("1.2.0")
		m.runs("1.1.0")
		m.want("1.0.0", "1.0.0 to 1.1.0")
		m.fails["1.1.0"] = false
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
		m.runs("1.1.0")
		m.want("1.1.0")
	})
	migrates(t, "two upgrades fail", func(m *migration) {
		kept(m)
		for _, to := range []string{"1.2.0", "1.3.0"} {
			m.swaps("1.1.0", to)
			m.failsTrial(to)
			m.runs("1.1.0")
			m.want("1.0.0", "1.0.0 to 1.1.0")
		}
	})
	migrates(t, "the new version crashes at once", func(m *migration) {
		kept(m)
		m.fails["1.1.0"] = false
		m.swaps("1.1.0", "1.2.0")
		m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
			return state.Revert(s, tr, "it crashed", now)
		})
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
	})
	migrates(t, "the upgrade is kept", func(m *migration) {
		kept(m)
		m.fails["1.2.0"] = true
		m.swaps("1.1.0", "1.2.0")
		m.runs("1.2.0")
		m.want("1.0.0", "1.0.0 to 1.2.0")
		m.swaps("1.2.0", "1.3.0")
		m.runs("1.3.0")
		m.want("1.3.0", "1.0.0 to 1.3.0")
		m.swaps("1.3.0", "1.4.0")
		m.runs("1.4.0")
		m.want("1.4.0", "1.3.0 to 1.4.0")
	})
	migrates(t, "an operator rolls back later", func(m *migration) {
		kept(m)
		m.swaps("1.1.0", "1.2.0")
		m.runs("1.2.0")
		m.want("1.2.0", "1.0.0 to 1.2.0")
		m.fails["1.1.0"] = false
		rollBack(m.t, m.l, "")
		m.runs("1.1.0") // it restores data that it had not migrated
		m.want("1.1.0", "1.0.0 to 1.1.0")
	})
}

// A record of an earlier agent, which knows no more than the last upgrade, is read as it was.
func TestARecordOfHooksOfAnEarlierAgent(t *testing.T) {
	migrates(t, "due", func(m *migration) {
		m.swaps("1.0.0", "1.1.0")
		m.fails["1.1.0"] = true
		m.runs("1.1.0")
		if err := m.l.Disk().WriteFile(m.l.Root()+"/hooks.json", []byte(`{"kept":{"from":"0.9.0","to":"1.1.0","after":"x"},"kept_tries":0}`), 0o600); err != nil {
			m.t.Fatal(err)
		}
		m.fails["1.1.0"], m.kept = false, nil
		m.runs("1.1.0")
		m.want("1.1.0", "0.9.0 to 1.1.0")
	})
	migrates(t, "not due", func(m *migration) {
		if err := m.l.Disk().WriteFile(m.l.Root()+"/hooks.json", []byte(`{"kept":{"from":"1.0.0","to":"1.1.0","after":"x"}}`), 0o600); err != nil {
			m.t.Fatal(err)
		}
		m.runs("1.0.0")
		m.want("1.0.0")
	})
}

// A version whose data an older one restored migrates them again, once the node returns to it.
func TestRestoredDataAreMigratedAgain(t *testing.T) {
	rolledBack := func(m *migration) { // from 1.1.0, which had migrated its data
		m.swaps("1.0.0", "1.1.0")
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
		rollBack(m.t, m.l, "")
	}
	migrates(t, "the older version fails", func(m *migration) {
		rolledBack(m)
		m.failsTrial("1.0.0")
		m.want("1.0.0")
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
		m.runs("1.1.0")
		m.want("1.1.0")
	})
	migrates(t, "and had restored nothing", func(m *migration) {
		rolledBack(m)
		m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
			return state.Revert(s, tr, "it crashed", now)
		})
		m.runs("1.1.0")
		m.want("1.1.0")
	})
	migrates(t, "the older version has no Kept", func(m *migration) {
		rolledBack(m)
		c := m.of("1.0.0")
		c.Kept = nil
		c.Serve = func(context.Context, *Agent) error { return errors.New("no such port") }
		_, _, done := started(m.t, c)
		if err := <-done; !errors.Is(err, ErrTrialFailed) {
			m.t.Error(err)
		}
		m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
			return state.Revert(s, tr, "no such port", now)
		})
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
	})
	migrates(t, "the older version is killed while it restores", func(m *migration) {
		rolledBack(m)
		c := m.of("1.0.0")
		c.RolledBack = func(ctx context.Context, _ Change) error {
			m.data = m.saved
			<-ctx.Done()
			return ctx.Err()
		}
		_, stop, done := started(m.t, c)
		time.Sleep(time.Minute)
		end(m.t, stop, done, nil)
		m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
			return state.Revert(s, tr, "it hung", now)
		})
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
	})
	migrates(t, "the older version is kept", func(m *migration) {
		rolledBack(m)
		m.runs("1.0.0")
		m.want("1.0.0", "1.1.0 to 1.0.0")
		m.swaps("1.0.0", "1.2.0")
		m.runs("1.2.0")
		m.want("1.2.0", "1.0.0 to 1.2.0")
	})
	migrates(t, "its migration ended while the next upgrade began", func(m *migration) {
		m.fails["1.1.0"] = true
		m.swaps("1.0.0", "1.1.0")
		m.runs("1.1.0")
		m.swaps("1.1.0", "1.2.0") // saves data that are not migrated
		m.want("1.0.0", "1.0.0 to 1.1.0")
		m.fails["1.1.0"] = false
		if err := m.l.ChangeHooks(m.t.Context(), func(h *state.Hooks) { h.Kept = nil }); err != nil {
			m.t.Fatal(err)
		}
		m.data = "1.1.0"
		m.failsTrial("1.2.0")
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
	})
}

// A Kept that fails is a warning of the node until it succeeds.
func TestAKeptThatFailsIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _, _ := aloneOnTrial(t)
		well := make(chan struct{})
		c.Kept = func(context.Context, Change) error {
			select {
			case <-well:
				return nil
			default:
				return errors.New("the disk is full")
			}
		}
		a, stop, done := started(t, c)
		changes := a.Changes(t.Context())
		s := until(t, "it fails", 10*time.Minute, changes, func(s Status) bool { return len(s.Warnings) > 0 })
		if w := s.Warnings; len(w) != 1 || !strings.Contains(w[0], "once 1.1.0 is kept") || !strings.Contains(w[0], "the disk is full") || !slices.Equal(a.health(t.Context()).Warnings, w) || a.health(t.Context()).Status != "ok" {
			t.Errorf("%q, %+v", w, a.health(t.Context()))
		}
		close(well)
		until(t, "it succeeds", 10*time.Minute, changes, func(s Status) bool { return len(s.Warnings) == 0 })
		if h := a.health(t.Context()); len(h.Warnings) != 0 {
			t.Errorf("%+v", h)
		}
		end(t, stop, done, nil)
	})
}
