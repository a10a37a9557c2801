//go:build !sim

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// starts is a start of a version that ends before it can be kept.
func (m *migration) starts(version string) {
	m.t.Helper()
	_, stop, done := started(m.t, m.of(version))
	time.Sleep(time.Second)
	synctest.Wait()
	end(m.t, stop, done, nil)
}

// fullWhile runs a version while hooks.json cannot be written for a time, and then for an hour more.
func (m *migration) fullWhile(version string, full time.Duration) {
	m.t.Helper()
	a, err := newOf(m.of(version))
	if err != nil {
		m.t.Fatal(err)
	}
	disk := fullOf("hooks.json")
	a.c.Layout = a.c.Layout.On(fsutil.Disk{Seam: disk})
	ctx, stop := context.WithCancel(m.t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	time.Sleep(full)
	disk.on.Store(false)
	time.Sleep(time.Hour)
	end(m.t, stop, done, nil)
}

// What was saved for an upgrade that never began, or before a version that was kept since, is never
// restored, also where the disk was full when that was to be recorded.
func TestSavedDataBecomeObsolete(t *testing.T) {
	refused := func(m *migration) {
		m.prepares("1.0.0", "1.1.0")
		m.runs("1.0.0")
		m.data = "months of 1.0.0"
	}
	returned := func(m *migration) { // by an operator, from a version that saved nothing
		m.swaps("1.0.0", "1.1.0")
		m.runs("1.1.0")
		installed(m.t, m.c, m.l, "1.2.0")
		m.begins("1.2.0")
		m.runs("1.2.0")
		rollBack(m.t, m.l, "1.0.0")
	}
	migrates(t, "the upgrade was refused, and its version fails later", func(m *migration) {
		refused(m)
		m.begins("1.1.0") // from a stick
		m.failsTrial("1.1.0")
		m.runs("1.0.0")
		m.want("months of 1.0.0")
	})
	migrates(t, "the upgrade was refused, and an operator rolls its version back", func(m *migration) {
		refused(m)
		m.begins("1.1.0")
		c := m.of("1.1.0")
		c.Kept = nil
		_, stop, done := started(m.t, c)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		end(m.t, stop, done, nil)
		rollBack(m.t, m.l, "1.0.0")
		m.starts("1.0.0")
		m.want("months of 1.0.0")
	})
	migrates(t, "the upgrade was refused, and two versions from sticks follow", func(m *migration) {
		refused(m)
		m.begins("1.1.0")
		installed(m.t, m.c, m.l, "1.2.0")
		m.begins("1.2.0")
		m.failsTrial("1.2.0")
		m.runs("1.0.0")
		m.want("months of 1.0.0")
	})
	migrates(t, "the upgrade was withdrawn", func(m *migration) {
		m.prepares("1.0.0", "1.1.0")
		m.shelves("1.1.0")
		m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
			s, err := state.Withdraw(s, "", "an operator withdrew", now)
			if err != nil {
				m.t.Error(err)
			}
			return s, tr
		})
		m.runs("1.0.0")
		m.data = "months of 1.0.0"
		m.begins("1.1.0")
		m.failsTrial("1.1.0")
		m.runs("1.0.0")
		m.want("months of 1.0.0")
	})
	migrates(t, "the disk is full when an operator returns", func(m *migration) {
		returned(m)
		m.fullWhile("1.0.0", 10*time.Minute)
		m.data = "months of 1.0.0"
		m.begins("1.1.0")
		m.failsTrial("1.1.0")
		m.runs("1.0.0")
		m.kept = nil
		m.want("months of 1.0.0")
	})
	migrates(t, "the disk is full when another version is kept", func(m *migration) {
		m.failed()
		installed(m.t, m.c, m.l, "1.2.0")
		m.begins("1.2.0")
		m.fullWhile("1.2.0", 10*time.Minute)
		for _, v := range []string{"1.1.0", "1.2.0"} {
			if err := os.RemoveAll(m.l.Version(release.MustVersion(v))); err != nil {
				m.t.Fatal(err)
			}
		}
		m.starts("1.0.0")
		if m.restored != "" {
			m.t.Errorf("restored from before %s", m.restored)
		}
	})
	migrates(t, "but not where the older version failed", func(m *migration) {
		returned(m)
		m.failsTrial("1.0.0") // it cannot read the data of 1.2.0
		m.runs("1.2.0")
		rollBack(m.t, m.l, "1.1.0")
		m.runs("1.1.0")
		rollBack(m.t, m.l, "1.0.0")
		m.starts("1.0.0")
		if m.restored != "1.1.0" {
			m.t.Errorf("RolledBack was called for %q", m.restored)
		}
	})
	migrates(t, "nor where an upgrade took the place of an operator's rollback", func(m *migration) {
		m.swaps("1.0.0", "1.1.0")
		m.runs("1.1.0")
		rollBack(m.t, m.l, "1.0.0")
		m.starts("1.0.0")
		m.prepares("1.0.0", "1.2.0") // under guard
		m.begins("1.2.0")
		m.failsTrial("1.2.0")
		m.runs("1.1.0")
		m.restored = ""
		rollBack(m.t, m.l, "1.0.0")
		m.starts("1.0.0")
		if m.restored != "1.1.0" {
			m.t.Errorf("1.0.0 runs with data of %s: RolledBack was called for %q", m.data, m.restored)
		}
	})
}

// A version that took the place of one on trial inherits what was saved before that one, whichever
// way it came and whatever follows it.
func TestAVersionFromAStickInherits(t *testing.T) {
	stick := func(m *migration) {
		m.swaps("1.0.0", "1.1.0")
		m.data = "1.1.0"
		installed(m.t, m.c, m.l, "1.2.0")
		m.begins("1.2.0")
		m.starts("1.2.0")
	}
	migrates(t, "an upgrade by the manager follows", func(m *migration) {
		stick(m)
		m.prepares("1.2.0", "1.3.0")
		m.begins("1.3.0")
		m.failsTrial("1.3.0")
		m.runs("1.0.0")
		m.want("1.0.0")
	})
	migrates(t, "another one from a stick follows", func(m *migration) {
		stick(m)
		installed(m.t, m.c, m.l, "1.3.0")
		m.begins("1.3.0")
		m.starts("1.3.0")
		m.failsTrial("1.3.0")
		m.runs("1.0.0")
		m.want("1.0.0")
	})
	migrates(t, "it is kept, and an operator rolls back", func(m *migration) {
		stick(m)
		m.runs("1.2.0")
		rollBack(m.t, m.l, "1.0.0")
		m.starts("1.0.0")
		m.kept = nil
		m.want("1.0.0")
	})
	migrates(t, "RolledBack was due before it", func(m *migration) {
		m.failed()
		installed(m.t, m.c, m.l, "1.2.0")
		m.begins("1.2.0")
		m.starts("1.2.0")
		m.prepares("1.2.0", "1.3.0")
		m.begins("1.3.0")
		m.failsTrial("1.3.0")
		m.runs("1.0.0")
		m.want("1.0.0")
	})
}

// Kept succeeds while BeforeTrial copies the data in their old form: the upgrade is prepared again.
func TestKeptSucceedsWhileDataAreSaved(t *testing.T) {
	migrates(t, "kept", func(m *migration) {
		m.fails["1.1.0"] = true
		m.swaps("1.0.0", "1.1.0")
		m.runs("1.1.0")
		m.want("1.0.0", "1.0.0 to 1.1.0")
		c := m.of("1.1.0")
		copied, ends, well := make(chan bool), make(chan bool), make(chan bool)
		c.Kept = func(context.Context, Change) error {
			select {
			case <-well:
				m.data = "1.1.0"
				return nil
			default:
				return errors.New("the disk is full")
			}
		}
		c.BeforeTrial = func(context.Context, Change) error {
			m.saved = m.data
			close(copied)
			<-ends
			return nil
		}
		a, stop, done := started(m.t, c)
		installed(m.t, m.c, m.l, "1.2.0")
		prepared := make(chan func() bool)
		go func() {
			still, err := a.beforeTrial(m.t.Context(), release.MustVersion("1.2.0"))
			if err != nil {
				m.t.Error(err)
			}
			prepared <- still
		}()
		<-copied
		close(well)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		close(ends)
		if still := <-prepared; m.data != "1.1.0" || still() {
			m.t.Errorf("data %s; the upgrade is not prepared again", m.data)
		}
		end(m.t, stop, done, nil)
	})
}

// onLog calls f with each message.
type onLog struct {
	slog.Handler
	f func(string)
}

func (o onLog) Handle(_ context.Context, r slog.Record) error { o.f(r.Message); return nil }
func (o onLog) Enabled(context.Context, slog.Level) bool      { return true }
func (o onLog) WithAttrs([]slog.Attr) slog.Handler            { return o }
func (o onLog) WithGroup(string) slog.Handler                 { return o }

// RolledBack succeeds between the decision that an upgrade inherits the data and its record.
func TestRolledBackSucceedsWhileAnUpgradeInherits(t *testing.T) {
	migrates(t, "it is not due again", func(m *migration) {
		m.failed()
		c := m.of("1.0.0")
		c.Log = slog.New(onLog{f: func(s string) {
			if s != "the service does not save its data again: it has not restored those that it saved before" {
				return
			}
			m.data = m.saved
			res, err := m.l.Read()
			if err := errors.Join(err, m.l.ChangeHooks(m.t.Context(), func(h *state.Hooks) { h.Restored(res.State, res.State) })); err != nil {
				m.t.Error(err)
			}
		}})
		a, err := newOf(c)
		if err != nil {
			m.t.Fatal(err)
		}
		installed(m.t, m.c, m.l, "1.2.0")
		if still, err := a.beforeTrial(m.t.Context(), release.MustVersion("1.2.0")); err != nil || still() {
			m.t.Errorf("not prepared again (%v)", err)
		}
		m.data = "months of 1.0.0" // the upgrade is refused
		m.runs("1.0.0")
		m.want("months of 1.0.0")
	})
}
