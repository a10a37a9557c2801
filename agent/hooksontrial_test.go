//go:build !sim

package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
)

// A version on trial saves nothing over what was saved before it: whichever version is rolled back
// then, the node returns to the version before both, with its own data.
func TestDataSavedBeforeATrialStay(t *testing.T) {
	onTrial := func(m *migration) { // 1.1.0 migrates its data before it is kept
		m.swaps("1.0.0", "1.1.0")
		m.data = "1.1.0"
	}
	migrates(t, "the newer version is withdrawn", func(m *migration) {
		onTrial(m)
		m.prepares("1.1.0", "1.2.0")
		m.failsTrial("1.1.0")
		m.runs("1.0.0")
		m.want("1.0.0")
	})
	migrates(t, "the newer version is rolled back", func(m *migration) {
		onTrial(m)
		m.swaps("1.1.0", "1.2.0")
		m.failsTrial("1.2.0")
		m.runs("1.0.0")
		m.want("1.0.0")
		if m.restored != "1.2.0" {
			m.t.Errorf("RolledBack was told that %s was rolled back", m.restored)
		}
	})
	migrates(t, "a third one is rolled back", func(m *migration) {
		onTrial(m)
		m.swaps("1.1.0", "1.2.0")
		m.data = "1.2.0"
		m.swaps("1.2.0", "1.3.0")
		m.failsTrial("1.3.0")
		m.runs("1.0.0")
		m.want("1.0.0")
	})
	migrates(t, "the newer version is kept, and an operator rolls back", func(m *migration) {
		onTrial(m)
		m.swaps("1.1.0", "1.2.0")
		m.runs("1.2.0")
		m.want("1.2.0", "1.0.0 to 1.2.0")
		rollBack(m.t, m.l, "1.0.0")
		m.runs("1.0.0")
		m.want("1.0.0", "1.2.0 to 1.0.0")
	})
}

// RolledBack stays due, whatever the node does next, until it has succeeded.
func TestARolledBackThatIsDueStaysDue(t *testing.T) {
	due := func(m *migration) {
		m.swaps("1.0.0", "1.1.0")
		m.data = "1.1.0"
		m.failsTrial("1.1.0")
	}
	next := state.Trial{ID: "next", CommandID: "next", Target: release.MustVersion("1.2.0"), MaxAttempts: 3}
	migrates(t, "the next swap is cut before its link", func(m *migration) {
		due(m)
		m.prepares("1.0.0", "1.2.0")
		m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
			return state.Begin(s, next, now), tr
		})
		watchdog.Run(m.t.Context(), m.l)
		m.runs("1.0.0")
		m.want("1.0.0")
	})
	migrates(t, "a version waits for an operator", func(m *migration) {
		due(m)
		m.prepares("1.0.0", "1.2.0")
		m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
			return state.Shelve(s, next, now), tr
		})
		m.runs("1.0.0")
		m.want("1.0.0")
	})
	migrates(t, "it failed, and an operator shelves a version by the command line", func(m *migration) {
		due(m)
		c := m.of("1.0.0")
		c.RolledBack = func(context.Context, Change) error { return errors.New("the disk is full") }
		_, stop, done := started(m.t, c)
		time.Sleep(time.Minute)
		synctest.Wait()
		end(m.t, stop, done, nil)
		installed(m.t, m.c, m.l, "1.2.0")
		m.do(func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree) {
			return state.Shelve(s, next, now), tr
		})
		m.runs("1.0.0")
		m.want("1.0.0")
	})
}

// prepares has a version prepare the trial of another one. still reports whether that holds.
func (m *migration) prepares(from, to string) (still func() bool) {
	m.t.Helper()
	installed(m.t, m.c, m.l, to)
	a, err := newOf(m.of(from))
	if err != nil {
		m.t.Fatal(err)
	}
	still, err = a.beforeTrial(m.t.Context(), release.MustVersion(to))
	if err != nil {
		m.t.Fatal(err)
	}
	return still
}
