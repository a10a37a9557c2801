//go:build !sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
	"github.com/bilbycast/edge-agent/wire"
)

// countingProxy passes connections to this host on, refuses all others, and counts those:
// what an agent fetches from the release host.
func countingProxy(t *testing.T) (url config.Secret, fetches *atomic.Int64) {
	t.Helper()
	return refusingProxy(t, http.StatusForbidden)
}

// refusingProxy is countingProxy with the status by which it refuses.
func refusingProxy(t *testing.T, status int) (url config.Secret, fetches *atomic.Int64) {
	t.Helper()
	fetches = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Host, "127.0.0.1:") {
			fetches.Add(1)
			http.Error(w, "no", status)
			return
		}
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(to, from); to.Close() }()
		io.Copy(from, to)
	}))
	t.Cleanup(s.Close)
	return config.NewSecret(s.URL), fetches
}

// An upgrade is refused, and nothing is fetched, while the running version's own check
// fails. A short flap refuses nothing, nor does a failure if an operator declared the release
// the repair, also after a restart in the middle.
func TestAnUpgradeNeedsAHealthyNode(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fails   int64 // calls, before all pass
		repair  bool
		resumed bool
		refused bool
	}{
		"healthy":                         {},
		"its check fails":                 {fails: 1 << 40, refused: true},
		"its check flaps":                 {fails: 2},
		"its check fails, repair":         {fails: 1 << 40, repair: true},
		"its check fails, resumed repair": {fails: 1 << 40, repair: true, resumed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := make(chan *wire.CommandAck, 1)
			event := make(chan *wire.Event, 1)
			url := manager(t, func(p peer) {
				p.welcome()
				if p.auth.NodeID != "" {
					p.drain()
					return
				}
				c := upgradeTo("c", "1.1.0")
				c.Action.Repair = tt.repair
				if !tt.resumed {
					p.send(c)
				}
				if tt.refused {
					m := p.until("the event", func(m wire.Message) bool {
						e, ok := m.(*wire.Event)
						return ok && e.Details.ErrorCode != release.Started
					})
					e, _ := m.(*wire.Event)
					event <- e
					p.send(c) // again: its outcome was recorded
					answer <- p.ack("c")
				}
				p.drain()
			})
			c := rootWith(t, url)
			var fetches *atomic.Int64
			c.Manager.Proxy, fetches = countingProxy(t)
			var asked atomic.Int64
			c.Check = func(context.Context) error {
				if asked.Add(1) <= tt.fails {
					return errors.New("the encoder is away")
				}
				return nil
			}
			if tt.resumed {
				l, err := state.At(c.Service.InstallRoot)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
					return state.Start(s, state.Command{ID: "c", Version: release.MustVersion("1.1.0"), Channel: "stable", Repair: true}, now), tr, nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			a := runAgent(t, c)
			if !tt.refused {
				wait(t, "something to be fetched", func() bool { return fetches.Load() > 0 })
				return
			}
			e, ack := <-event, <-answer
			if e == nil || e.Severity != release.Warning || e.Details.ErrorCode != release.Unhealthy || !strings.Contains(e.Message, "the encoder is away") {
				t.Errorf("the event: %+v", e)
			}
			if ack.Success || ack.ErrorCode != release.Unhealthy || !strings.Contains(ack.Error, "the encoder is away") {
				t.Errorf("the answer: %+v", ack)
			}
			res, err := a.c.Layout.Read()
			if err != nil || res.State.Status != state.Stable || res.Tree.Current.String() != "1.0.0" {
				t.Errorf("%s, current %s, %v", res.State.Status, res.Tree.Current, err)
			}
			if list, err := os.ReadDir(a.c.Layout.Versions()); err != nil || len(list) != 1 || fetches.Load() != 0 {
				t.Errorf("%d versions, %d fetches, %v", len(list), fetches.Load(), err)
			}
		})
	}
}

// In attached mode the unit has to be up, too, in whichever start.
func TestAnAttachedUnitIsAskedBeforeASwap(t *testing.T) {
	t.Parallel()
	c, _ := attachedRoot(t)
	n := 0
	unit := up("")
	a, err := newAttached(c.Config, c.Options, fakeUnit{look: func() (trial.Service, error) {
		n++
		unit.Invocation = fmt.Sprint("start ", n)
		return unit, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := errors.Join(a.running(false).Up(t.Context()), a.checkRunning(t.Context())); err != nil {
			t.Errorf("up: %v", err)
		}
	}
	for _, down := range []trial.Service{{State: trial.Stopped, Words: "app.service is inactive"}, {State: trial.Down, Words: "app.service is failed"}} {
		unit = down
		if err := a.running(false).Up(t.Context()); err == nil || !strings.Contains(err.Error(), down.Words) {
			t.Errorf("%v, want %v", err, down)
		}
	}
	unit = up("")
	a.c.Health = config.Health{Command: []string{"/bin/false"}, TimeoutSecs: 5}
	if err := a.checkRunning(t.Context()); err == nil || !strings.Contains(err.Error(), "health.command") {
		t.Errorf("up, and its check fails: %v", err)
	}
	a.c.Health.Command = []string{"/bin/sh", "-c", "echo no route to db; exit 75"}
	if err := a.checkRunning(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot tell whether the service is well: health.command: exit status 75: no route to db") {
		t.Errorf("up, and its check cannot tell: %v", err)
	}
	a.c.Health.Command = []string{"/no/such"} // it says nothing
	if err := a.checkRunning(t.Context()); err != nil {
		t.Errorf("up, and its check cannot be run: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.checkRunning(ended); err == nil {
		t.Error("an agent that ends was content with its check")
	}
}

// What the service depends on must answer before a swap, also before that of a repair.
func TestTheDependencyIsAskedBeforeASwap(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		dependency config.Dependency
		repair     bool
		refused    bool
	}{
		"it answers":                  {dependency: config.Dependency{"/bin/true"}},
		"it does not":                 {dependency: config.Dependency{"/bin/sh", "-c", "echo no route to db; exit 2"}, refused: true},
		"it does not, for the repair": {dependency: config.Dependency{"/bin/sh", "-c", "echo no route to db; exit 2"}, repair: true, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			event := make(chan *wire.Event, 1)
			url := manager(t, func(p peer) {
				p.welcome()
				if p.auth.NodeID == "" {
					c := upgradeTo("c", "1.1.0")
					c.Action.Repair = tt.repair
					p.send(c)
				}
				if tt.refused {
					m := p.until("the event", func(m wire.Message) bool {
						e, ok := m.(*wire.Event)
						return ok && e.Details.ErrorCode != release.Started
					})
					e, _ := m.(*wire.Event)
					event <- e
				}
				p.drain()
			})
			c := rootWith(t, url)
			var fetches *atomic.Int64
			c.Manager.Proxy, fetches = countingProxy(t)
			c.Health.Dependency = tt.dependency
			runAgent(t, c)
			if !tt.refused {
				wait(t, "something to be fetched", func() bool { return fetches.Load() > 0 })
				return
			}
			e := <-event
			if e == nil || e.Severity != release.Warning || e.Details.ErrorCode != release.Unhealthy || !strings.Contains(e.Message, "health.dependency: exit status 2: no route to db") || !strings.Contains(e.Message, "bring it back") {
				t.Errorf("the event: %+v", e)
			}
			if fetches.Load() != 0 {
				t.Errorf("%d fetches", fetches.Load())
			}
		})
	}
}

// After a reboot in the middle of an upgrade the service has the time of a trial to come up.
// An upgrade that nothing interrupted does not wait.
func TestAResumedUpgradeWaitsForTheService(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := newTrial(t, dir)
		sick := release.Errorf(release.Unhealthy, "connection refused")
		if o.waitAfterStart(t.Context(), state.Command{}, sick) {
			t.Error("an upgrade that was not resumed waits")
		}
		resumed := state.Command{Resumed: 1}
		if o.waitAfterStart(t.Context(), resumed, release.Errorf(release.SignatureInvalid, "forged")) || o.waitAfterStart(t.Context(), resumed, nil) {
			t.Error("another outcome waits")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if o.waitAfterStart(ctx, resumed, sick) {
			t.Error("it continues although the process ends")
		}
		began := time.Now()
		for o.waitAfterStart(t.Context(), resumed, sick) {
		}
		if took := time.Since(began); took < o.c.Window || took > o.c.Window+resumePause {
			t.Errorf("it waits for %v", took)
		}
	})
}
