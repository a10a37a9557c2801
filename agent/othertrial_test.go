//go:build !sim

package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
)

// link does what ln -sfn does with current; "" removes it.
func pointLink(t *testing.T, l state.Layout, version string) {
	t.Helper()
	err := os.Remove(l.Current())
	if version != "" {
		err = errors.Join(err, (fsutil.Disk{}).Symlink(filepath.Join("versions", version), l.Current()))
	}
	if err != nil {
		t.Error(err)
	}
}

// Somebody changes current while 1.1.0 is on trial, and does not restart the service. A
// version that never ran is not kept; 1.1.0 is kept if current still means it, or does
// again. No healthy version is rolled back because of a missing link.
func TestCurrentChangesDuringATrial(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		to, back string
		status   state.Status
		current  string
		ready    bool
	}{
		"to a version that never ran":           {to: "1.0.5", status: state.PendingHealth, current: "1.0.5"},
		"to the version before":                 {to: "1.0.0", status: state.RolledBack, current: "1.0.0"},
		"to a version that never ran, and back": {to: "1.0.5", back: "1.1.0", status: state.Stable, current: "1.1.0", ready: true},
		"to nothing":                            {to: "9.9.9", status: state.Stable, current: "1.1.0", ready: true},
		"it is removed":                         {to: "", status: state.Stable, current: "1.1.0", ready: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				o := newTrial(t, dir)
				var log bytes.Buffer
				o.log = logTo(&log, slog.LevelDebug)
				l := o.c.Layout
				third := l.Version(release.MustVersion("1.0.5"))
				if err := errors.Join(os.Mkdir(third, 0o755), os.WriteFile(filepath.Join(third, "app"), []byte("program"), 0o755)); err != nil {
					t.Fatal(err)
				}
				o.c.Upgrade.KeepVersions = 2
				if _, err := o.run(t, func() {
					o.setAuthenticated(true)
					time.Sleep(5 * time.Second)
					pointLink(t, l, tt.to)
					time.Sleep(15 * time.Second) // the hold is over
					if tt.back != "" {
						pointLink(t, l, tt.back)
					}
					time.Sleep(15 * time.Second)
					o.closeSwap() // as followCurrent does
				}); err != nil {
					t.Fatal(err)
				}
				res, err := l.Read()
				if err != nil || res.State.Status != tt.status || res.Tree.Current.String() != tt.current || o.said("STATUS=1.1.0 runs") != tt.ready {
					t.Errorf("%+v, %+v, %v; systemd got %q", res.State, res.Tree, err, o.notified)
				}
				if completed := strings.Contains(log.String(), "upgrade completed"); completed != tt.ready {
					t.Errorf("the log: %s", log.String())
				}
				if !tt.ready && (res.State.BootAttempts > 1 || res.Tree.LastGood.String() != "1.0.0" || !res.Tree.Has(res.State.Target) || len(res.Tree.Versions) != 3) {
					t.Errorf("%+v, %+v", res.State, res.Tree)
				}
				if tt.status != state.PendingHealth {
					return
				}
				if res.State.Target.String() != tt.current || res.State.BootAttempts != 0 {
					t.Errorf("%+v", res.State)
				}
				// What happens to the process of 1.1.0 is no failure of 1.0.5.
				o.recordFailedStart(t.Context(), o.res.State, errors.New("of 1.1.0"))
				if err := count(l); err != nil {
					t.Fatal(err)
				}
				o.recordFailedStart(t.Context(), o.res.State, errors.New("of 1.1.0"))
				if res, err := l.Read(); err != nil || res.State.BootAttempts != 1 || len(res.State.FailedStarts) > 0 {
					t.Errorf("%+v, %v", res.State, err)
				}
			})
		})
	}
}

// Somebody points current of an attached service to a third version at the very end of a
// trial's hold: the third version is on trial, and was not kept.
func TestAThirdVersionOfAnAttachedServiceIsNotKept(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	if err := os.Mkdir(l.Version(release.MustVersion("1.0.5")), 0o755); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newService(l)
		if err := s.start(false); err != nil {
			t.Fatal(err)
		}
		var moved atomic.Pointer[time.Time]
		unit := s.unit()
		look := unit.look
		unit.look = func() (trial.Service, error) {
			u, err := look()
			if now := time.Now(); moved.Load() == nil && u.Age >= 40*time.Second {
				moved.Store(&now)
				pointLink(t, l, "1.0.5")
			}
			return u, err
		}
		res := attend(t, c, l, unit, func(r state.Result) bool { return moved.Load() != nil && time.Since(*moved.Load()) > 4*time.Second })
		if res.Tree.Current.String() != "1.0.5" || res.Tree.LastGood.String() != "1.0.0" || res.State.Status != state.PendingHealth || res.State.Target.String() != "1.0.5" {
			t.Errorf("%d starts, %+v, %+v", s.n, res.State, res.Tree)
		}
	})
}
