//go:build !sim

package agent

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

// begins begins the trial of a version, which no running one prepares now.
func (m *migration) begins(to string) {
	m.t.Helper()
	v := release.MustVersion(to)
	m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
		s = state.Begin(s, state.Trial{ID: "trial of " + to, CommandID: "trial of " + to, Target: v, MaxAttempts: 3}, now)
		tr.Previous, tr.Current = s.Previous, v
		return s, tr
	})
	watchdog.Run(m.t.Context(), m.l)
}

// shelves puts a version ready for an operator.
func (m *migration) shelves(to string) {
	m.t.Helper()
	m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
		return state.Shelve(s, state.Trial{ID: "trial of " + to, CommandID: "trial of " + to, Target: release.MustVersion(to), MaxAttempts: 3}, now), tr
	})
}

// cannotRestore is a start of a version whose RolledBack fails.
func (m *migration) cannotRestore(version string) {
	m.t.Helper()
	c := m.of(version)
	c.RolledBack = func(context.Context, Change) error { return errors.New("the disk is full") }
	_, stop, done := started(m.t, c)
	time.Sleep(time.Minute)
	synctest.Wait()
	end(m.t, stop, done, nil)
}

// failed is an upgrade to 1.1.0 that was rolled back, and whose data 1.0.0 could not restore.
func (m *migration) failed() {
	m.t.Helper()
	m.swaps("1.0.0", "1.1.0")
	m.data = "1.1.0"
	m.failsTrial("1.1.0")
	m.cannotRestore("1.0.0")
}

// The running version prepares an upgrade; before its commit it is kept, or restores its data.
// Then what it prepared is no longer right, and it prepares the upgrade again. A call of
// RolledBack that ends after the commit takes nothing from the rollback of the new version.
func TestTheStateChangesWhileAnUpgradeIsPrepared(t *testing.T) {
	changed := func(m *migration, still func() bool) {
		m.t.Helper()
		if still() {
			m.t.Error("the upgrade is not prepared again")
		}
	}
	migrates(t, "nothing changes", func(m *migration) {
		m.swaps("1.0.0", "1.1.0")
		if still := m.prepares("1.1.0", "1.2.0"); !still() {
			m.t.Error("the upgrade is prepared again")
		}
	})
	migrates(t, "the version on trial is kept", func(m *migration) {
		m.swaps("1.0.0", "1.1.0")
		m.data = "1.1.0"
		still := m.prepares("1.1.0", "1.2.0")
		m.runs("1.1.0")
		changed(m, still)
		m.prepares("1.1.0", "1.2.0")
		m.begins("1.2.0")
		m.data = "1.2.0"
		m.failsTrial("1.2.0")
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
	})
	migrates(t, "RolledBack succeeds", func(m *migration) {
		m.failed()
		still := m.prepares("1.0.0", "1.2.0")
		m.runs("1.0.0")
		changed(m, still)
		m.prepares("1.0.0", "1.2.0")
		m.begins("1.2.0")
		m.data = "1.2.0"
		m.failsTrial("1.2.0")
		m.runs("1.0.0")
		m.want("1.0.0")
	})
	shelve := func(m *migration) { m.shelves("1.2.0") }
	for name, c := range map[string]struct{ before, commit func(*migration) }{
		"RolledBack succeeds after the commit":                {commit: func(m *migration) { m.begins("1.2.0") }},
		"RolledBack succeeds after the version was put ready": {commit: shelve},
		"RolledBack begins after the version was put ready":   {before: shelve},
	} {
		migrates(t, name, func(m *migration) {
			m.failed()
			if c.before != nil {
				m.prepares("1.0.0", "1.2.0")
				c.before(m)
			}
			old := m.of("1.0.0")
			ends := make(chan bool)
			old.RolledBack = func(context.Context, Change) error { <-ends; m.data = m.saved; return nil }
			_, stop, done := started(m.t, old)
			synctest.Wait() // in RolledBack
			if c.commit != nil {
				m.prepares("1.0.0", "1.2.0")
				c.commit(m)
			}
			close(ends)
			time.Sleep(time.Minute)
			synctest.Wait()
			stop()
			<-done
			if res, err := m.l.Read(); err == nil && res.State.Status == state.StagedManual {
				m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
					s, tr, err := state.Apply(s, tr, now)
					if err != nil {
						m.t.Error(err)
					}
					return s, tr
				})
				watchdog.Run(m.t.Context(), m.l)
			}
			m.data = "1.2.0"
			m.failsTrial("1.2.0")
			m.runs("1.0.0")
			m.want("1.0.0")
		})
	}
}

// Data of a time before the running version wrote its own are never restored over those.
func TestOldDataAreNotRestored(t *testing.T) {
	migrates(t, "an operator returns to the version that could not restore", func(m *migration) {
		m.failed()
		installed(m.t, m.c, m.l, "1.2.0")
		m.begins("1.2.0") // from a stick
		m.runs("1.2.0")
		rollBack(m.t, m.l, "1.0.0")
		m.runs("1.0.0")
		m.data, m.kept = "months of 1.0.0", nil
		m.of("1.0.0")
		m.cannotRestore("1.0.0") // a start: it may call nothing
		m.runs("1.0.0")
		m.want("months of 1.0.0")
	})
	migrates(t, "the version that took its place is lost", func(m *migration) {
		m.failed()
		m.swaps("1.0.0", "1.2.0")
		m.runs("1.2.0")
		m.data, m.kept = "months of 1.2.0", nil
		for _, v := range []string{"1.1.0", "1.2.0"} {
			if err := os.RemoveAll(m.l.Version(release.MustVersion(v))); err != nil {
				m.t.Fatal(err)
			}
		}
		watchdog.Run(m.t.Context(), m.l)
		c := m.of("1.0.0")
		c.Kept = nil
		_, stop, done := started(m.t, c)
		time.Sleep(time.Minute)
		end(m.t, stop, done, nil)
		m.want("months of 1.2.0")
	})
	migrates(t, "the record of the call failed for a minute", func(m *migration) {
		m.swaps("1.0.0", "1.1.0")
		m.data = "1.1.0"
		m.failsTrial("1.1.0")
		m.fullWhile("1.0.0", time.Minute)
		m.data = "written since by 1.0.0"
		m.runs("1.0.0")
		m.want("written since by 1.0.0")
	})
	migrates(t, "the record of the call failed until the next upgrade", func(m *migration) {
		m.swaps("1.0.0", "1.1.0")
		m.data = "1.1.0"
		m.failsTrial("1.1.0")
		a, err := newOf(m.of("1.0.0"))
		if err != nil {
			m.t.Fatal(err)
		}
		full := fullOf("hooks.json")
		a.c.Layout = a.c.Layout.On(fsutil.Disk{Seam: full})
		ctx, stop := context.WithCancel(m.t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Minute + time.Second)
		if _, err := a.beforeTrial(ctx, release.MustVersion("1.2.0")); err == nil {
			m.t.Error("an upgrade begins though what is saved cannot be recorded")
		}
		full.on.Store(false)
		m.data = "written since by 1.0.0"
		installed(m.t, m.c, m.l, "1.2.0")
		if _, err := a.beforeTrial(ctx, release.MustVersion("1.2.0")); err != nil {
			m.t.Error(err)
		}
		time.Sleep(time.Minute) // no attempt to record the call may remove what was saved
		end(m.t, stop, done, nil)
		m.begins("1.2.0")
		m.data = "1.2.0"
		m.failsTrial("1.2.0")
		m.runs("1.0.0")
		m.want("written since by 1.0.0")
	})
}

// fullFor is a disk that is full for one file while it is on.
type fullFor struct {
	file string
	on   atomic.Bool
}

func fullOf(file string) *fullFor {
	f := &fullFor{file: file}
	f.on.Store(true)
	return f
}

func (f *fullFor) Change(op fsutil.Op, make func() error) error {
	if f.on.Load() && strings.Contains(op.Path+op.To, f.file) {
		return unix.ENOSPC
	}
	return make()
}

// What was saved before a version on trial is restored, whatever took its place, and whether it
// knows the hooks or not.
func TestTheVersionOnTrialIsReplaced(t *testing.T) {
	onTrial := func(m *migration) {
		m.swaps("1.0.0", "1.1.0")
		m.data = "1.1.0"
		installed(m.t, m.c, m.l, "1.2.0")
	}
	migrates(t, "from a stick", func(m *migration) {
		onTrial(m)
		m.begins("1.2.0")
		m.failsTrial("1.2.0")
		m.runs("1.0.0")
		m.want("1.0.0")
		if m.restored != "1.2.0" {
			m.t.Errorf("RolledBack was told that %s was rolled back", m.restored)
		}
	})
	migrates(t, "and has no hooks", func(m *migration) {
		onTrial(m)
		c := m.of("1.1.0")
		c.BeforeTrial, c.RolledBack = nil, nil
		a, err := newOf(c)
		if err != nil {
			m.t.Fatal(err)
		}
		if _, err := a.beforeTrial(m.t.Context(), release.MustVersion("1.2.0")); err != nil {
			m.t.Fatal(err)
		}
		m.begins("1.2.0")
		m.failsTrial("1.2.0")
		m.runs("1.0.0")
		m.want("1.0.0")
	})
	migrates(t, "and an operator tries it again", func(m *migration) {
		m.failed()
		rollBack(m.t, m.l, "1.1.0")
		watchdog.Run(m.t.Context(), m.l)
		m.prepares("1.1.0", "1.2.0")
		m.begins("1.2.0")
		m.failsTrial("1.2.0")
		m.runs("1.0.0")
		m.want("1.0.0")
	})
}

// Credentials that the version on trial destroyed are back before the node connects, also where the
// disk was full at the rollback and when the agent started.
func TestCredentialsComeBackBeforeTheNodeConnects(t *testing.T) {
	for name, spoil := range map[string]func(string) error{
		"removed":                      os.Remove,
		"emptied":                      func(p string) error { return os.Truncate(p, 0) },
		"removed, the disk stays full": os.Remove,
		"a directory":                  func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			c, l, _, _ := alone(t)
			installed(t, c, l, "1.1.0")
			if err := os.WriteFile(l.CredentialsFile(), []byte(`{"node_id":"n1","node_secret":"s"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := l.RecordSwap(state.SwapRecord{TrialID: "trial of 1.1.0", From: release.MustVersion("1.0.0")}); err != nil {
				t.Fatal(err)
			}
			m := &migration{t: t, c: c, l: l}
			m.begins("1.1.0")
			if err := spoil(l.CredentialsFile()); err != nil {
				t.Fatal(err)
			}
			full := fullOf("credentials")
			m.l = l.On(fsutil.Disk{Seam: full})
			m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
				return state.Revert(s, tr, "it fails", now)
			})
			a, err := newOf(m.of("1.0.0"))
			if err != nil {
				t.Fatal(err)
			}
			a.c.Layout = a.c.Layout.On(fsutil.Disk{Seam: full})
			a.reconcile(t.Context())
			full.on.Store(name == "removed, the disk stays full")
			if got, err := a.credentials(t.Context()); got.NodeID != "n1" {
				t.Errorf("it would register again, or not connect: %+v, %v", got, err)
			}
		})
	}
}
