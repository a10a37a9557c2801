package watchdog_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/watchdog"
)

// A new version gets three starts. None of them proves it healthy, so the fourth start
// runs the previous version.
func ExampleRun() {
	err := func(ctx context.Context) error {
		dir, err := os.MkdirTemp("", "example")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		root, err := state.At(dir)
		if err != nil {
			return err
		}
		previous, target := release.MustVersion("1.4.0"), release.MustVersion("1.5.0")
		for _, v := range []release.Version{previous, target} {
			if err := os.MkdirAll(root.Version(v), 0o755); err != nil {
				return err
			}
		}
		// What package upgrade leaves: 1.5.0 is on trial, and 1.4.0 proved healthy before.
		_, err = root.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			t.LastGood, t.Previous, t.Current = previous, previous, target
			s = state.Install(s, state.Trial{Target: previous}, now)
			return state.Begin(s, state.Trial{ID: "c1", Target: target, MaxAttempts: 3}, now), t, nil
		})
		if err != nil {
			return err
		}
		for start := range 4 {
			report := watchdog.Run(ctx, root)
			r, err := root.Read()
			if err != nil {
				return err
			}
			fmt.Printf("start %d runs %s: %s, rolled back: %t\n", start+1, r.Tree.Current, r.State.Status, report.Reverted)
		}
		return nil
	}(context.Background())
	fmt.Println(err)
	// Output:
	// start 1 runs 1.5.0: pending_health, rolled back: false
	// start 2 runs 1.5.0: pending_health, rolled back: false
	// start 3 runs 1.5.0: pending_health, rolled back: false
	// start 4 runs 1.4.0: rolled_back, rolled back: true
	// <nil>
}

// A service calls RunAfter for `player watchdog --root DIR`, its ExecStartPre=. The
// command never fails, so the service starts in any case.
func ExampleRunAfter() {
	root, err := state.At("/opt/acme/player")
	if err != nil {
		fmt.Println(err)
		return
	}
	report := watchdog.RunAfter(context.Background(), root, watchdog.Systemd{LastEnd: systemd.LastEnd, Restarts: systemd.Restarts})
	for _, r := range report.Records() {
		fmt.Println(r.Level, r.Message, r.Fields)
	}
}
