package watchdog_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
)

// A state.json that cannot be read may be sound: the watchdog changes nothing. Only when
// systemd has restarted a version that is not last-good nine times in a row does it
// roll back, by the link; the state follows once it can be written.
func TestAnUnreadableState(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ blind, restarts int }{{1, 0}, {1, 50}, {9, 8}, {9, 50}, {10, 3}, {10, 9}} {
		l := trial(t, 3)
		report := watchdog.Report{}
		// blind starts in a row; systemd has counted restarts, some of them of earlier crashes.
		unreadable.While(t, l.Root(), l.StateFile(), func() {
			for range tt.blind {
				report = watchdog.RunAfter(t.Context(), l, watchdog.Systemd{Restarts: func(context.Context) (int, error) { return tt.restarts, nil }})
			}
		})
		restarts, want := fmt.Sprint(tt), v2
		if tt.blind == 10 && tt.restarts == 9 {
			want = v1
		}
		tree, err := l.Tree()
		if err != nil || tree.Current != want || report.Reverted != (want == v1) {
			t.Errorf("%s: current points to %s, reverted %t, %v", restarts, tree.Current, report.Reverted, err)
		}
		res, err := l.Do(t.Context(), nil)
		if err != nil || res.Tree.Current != want || (res.State.Status == state.PendingHealth) != (want == v2) || res.State.BootAttempts != 0 && want == v2 {
			t.Errorf("%s: then %+v, %v", restarts, res.State, err)
		}
	}
}

// The running version's program is gone, and the watchdog's with it: rescue, which is the
// previous version's, has the previous version start.
func TestRescueOfADamagedProgram(t *testing.T) {
	t.Parallel()
	l := root(t)
	for _, v := range []release.Version{v1, v2} {
		if err := os.WriteFile(filepath.Join(l.Version(v), "edge"), []byte("program"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
		tr.Previous, tr.Current, tr.LastGood = v1, v2, v2
		return state.Install(s, state.Trial{Target: v2}, now), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(l.Version(v2), "edge"), 0o644); err != nil {
		t.Fatal(err)
	}
	l = l.WithProgramAt(filepath.Join(l.Version(v1), "edge"))
	report, acted := watchdog.Rescue(t.Context(), l)
	tree, err := l.Tree()
	if err != nil || !acted || report.Current != v1 || tree.Current != v1 || tree.LastGood != v1 {
		t.Errorf("acted %t, %+v, %+v, %v", acted, report, tree, err)
	}
}
