//go:build !sim

package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
)

func requested(t *testing.T, l state.Layout) bool {
	t.Helper()
	_, err := os.Stat(l.RestartFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// Where systemd restarts the service at once, the service goes on until it does. Where it does
// not, the process ends, and leaves no request behind.
func TestARestartIsRequested(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		check func(hang chan struct{}) error
		serve bool          // systemd answers after 100 ms
		took  time.Duration // from the drain to the end of Run
		log   string
	}{
		"at once":           {func(chan struct{}) error { return nil }, true, 100 * time.Millisecond, "requested a restart into the new version"},
		"nobody answers":    {func(chan struct{}) error { return nil }, false, time.Second, "systemd did not restart the service as requested"},
		"no such unit":      {func(chan struct{}) error { return errors.New("edge-respawn.path is inactive") }, false, 0, ""},
		"not under systemd": {nil, false, 0, ""},
		"the check panics":  {func(chan struct{}) error { panic("oops") }, false, 0, "Options.CheckRestart"},
		"the check hangs":   {func(hang chan struct{}) error { <-hang; return nil }, false, checkRestartLimit + callbackGrace, "Options.CheckRestart"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l, told, log := alone(t)
				hang := make(chan struct{})
				defer close(hang)
				if tt.check != nil {
					c.CheckRestart = func(context.Context) error { return tt.check(hang) }
				}
				a, stop, done := started(t, c)
				time.Sleep(time.Minute)
				began := time.Now()
				a.closeSwap()
				if tt.serve {
					time.Sleep(tt.took)
					synctest.Wait()
					if !requested(t, l) || strings.Contains(told.String(), "STOPPING=1") {
						t.Errorf("requested: %t; systemd was told: %s", requested(t, l), told)
					}
					stop()
				}
				if err := <-done; !errors.Is(err, ErrRestart) || time.Since(began) != tt.took || requested(t, l) != tt.serve {
					t.Errorf("after %v: %v; requested: %t", time.Since(began), err, requested(t, l))
				}
				if !strings.Contains(log.String(), tt.log) {
					t.Errorf("log: %s", log)
				}
				// The next start takes the request.
				_, stop, done = started(t, c)
				time.Sleep(time.Minute)
				if requested(t, l) {
					t.Error("the request is still there")
				}
				end(t, stop, done, nil)
			})
		})
	}
}
