//go:build !sim

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/wire"
)

// Status shows that the service's check fails, and why, as long as it does, also in a node that
// reaches no manager.
func TestStatusOfAFailingCheck(t *testing.T) {
	const why = "no disk"
	for name, fails := range map[string]struct {
		how  func(context.Context) error
		want string
	}{
		"an error": {func(context.Context) error { return errors.New(why) }, why},
		"a panic":  {func(context.Context) error { panic(why) }, "Options.Check panicked: " + why},
		"hangs":    {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, "context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, told, _ := alone(t)
				var ill atomic.Bool
				c.Check = func(ctx context.Context) error {
					if ill.Load() {
						return fails.how(ctx)
					}
					return nil
				}
				a, stop, done := started(t, c)
				changes := a.Changes(t.Context())
				until(t, "it is well", time.Minute, changes, func(s Status) bool { return s.Health == wire.StatusOK && s.Problem == "" })
				ill.Store(true)
				s := until(t, "it is ill", time.Minute, changes, func(s Status) bool { return s.Health == wire.StatusDegraded })
				if !strings.Contains(s.Problem, fails.want) || !strings.Contains(s.Text, "degraded: ") || !strings.Contains(s.Text, fails.want) || !strings.Contains(told.String(), fails.want) {
					t.Errorf("%+v; systemd was told %s", s, told)
				}
				if b, err := json.Marshal(s); err != nil || !strings.Contains(string(b), `"status":"degraded","problem":"`) {
					t.Errorf("%s, %v", b, err)
				}
				ill.Store(false)
				s = until(t, "it is well again", time.Minute, changes, func(s Status) bool { return s.Health == wire.StatusOK })
				if s.Problem != "" || strings.Contains(s.Text, "degraded") {
					t.Errorf("%+v", s)
				}
				end(t, stop, done, nil)
			})
		})
	}
}

// A service that does not serve is degraded in Status, and its text says so once.
func TestStatusOfAServiceThatDoesNotServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _, _ := alone(t)
		c.Serve = func(context.Context, *Agent) error { return errors.New("no such port") }
		a, stop, done := started(t, c)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := a.Status(); s.Health != wire.StatusDegraded || !strings.Contains(s.Problem, "no such port") || strings.Count(s.Text, "no such port") != 1 {
			t.Errorf("%+v", s)
		}
		end(t, stop, done, nil)
	})
}
