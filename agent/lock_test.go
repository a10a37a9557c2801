//go:build !sim

package agent

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// While the agent waits for a manager, a health check, systemd, a handler or a
// draining service, the watchdog of the next start gets the lock of the root. With
// the lock held, the change below would fail after state.LockWait.
func TestTheLockIsFreeWhileTheAgentWaits(t *testing.T) {
	t.Parallel()
	var l state.Layout
	var mu sync.Mutex
	var trying sync.WaitGroup // until then the root must stay
	seen := map[string]bool{}
	tryLock := func(while string) {
		mu.Lock()
		first := !seen[while]
		if seen[while] = true; first {
			trying.Add(1)
		}
		mu.Unlock()
		if !first {
			return
		}
		defer trying.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 2*state.LockWait)
		defer cancel()
		if _, err := l.Do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) { return s, t, nil }); err != nil {
			t.Errorf("while %s: %v", while, err)
		}
	}
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { tryLock("health.http answers") }))
	t.Cleanup(well.Close)
	c := rootWith(t, manager(t, func(p peer) {
		tryLock("the manager answers auth")
		p.welcome()
		p.send(&wire.Command{CommandID: "h", Action: wire.Action{Type: "reboot"}})
		if p.ack("h").Success {
			tryLock("the command is answered")
		}
		p.send(upgradeTo("u", "0.1.0")) // refused, after a look at the unit
		p.drain()
	}))
	var err error
	if l, err = state.At(c.Service.InstallRoot); err != nil {
		t.Fatal(err)
	}
	c.Health.HTTP = well.URL
	c.Check = func(context.Context) error { tryLock("Check runs"); return nil }
	c.CheckUnit = func(context.Context) error { tryLock("CheckUnit runs"); return nil }
	c.Journal = func(context.Context) ([]string, error) { tryLock("Journal runs"); return []string{"a line"}, nil }
	c.Notify = func(string) error { tryLock("Notify runs"); return nil }
	c.Handlers = Handlers{"reboot": func(context.Context, Command) (any, error) { tryLock("a handler runs"); return nil, nil }}
	// The last upgrade was rolled back, so that the journal is read.
	v := release.MustVersion("1.1.0")
	if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		s = state.Begin(s, state.Trial{ID: "c", CommandID: "c", Target: v}, time.Now())
		s, tr = state.Revert(s, tr, "test", time.Now())
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	runAgent(t, c)
	want := []string{"Check runs", "CheckUnit runs", "Journal runs", "Notify runs", "a handler runs", "health.http answers", "the command is answered", "the manager answers auth"}
	wait(t, "every part", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(slices.Sorted(maps.Keys(seen)), want)
	})
	trying.Wait()
}
