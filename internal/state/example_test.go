package state_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// exampleRoot returns an install root with these versions, of which the first one runs.
func exampleRoot(versions ...string) (l state.Layout, remove func(), err error) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		return l, nil, err
	}
	if l, err = state.At(dir); err == nil {
		err = l.Make()
	}
	for _, v := range versions {
		if err == nil {
			err = os.Mkdir(l.Version(release.MustVersion(v)), 0o755)
		}
	}
	if err == nil {
		_, err = l.Do(context.Background(), func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			first := release.MustVersion(versions[0])
			t.LastGood, t.Current = first, first
			return state.Install(s, state.Trial{Target: first}, now), t, nil
		})
	}
	return l, func() { os.RemoveAll(dir) }, err
}

// A trial begins with one durable change: state.json first, then the links. Whatever is
// interrupted in between, the next Do completes.
func ExampleLayout_Do() {
	l, remove, err := exampleRoot("1.4.0", "1.5.0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer remove()
	target := release.MustVersion("1.5.0")
	r, err := l.Do(context.Background(), func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		s = state.Begin(s, state.Trial{ID: "c1", Target: target, MaxAttempts: 3}, now)
		t.Previous, t.Current = s.Previous, target
		return s, t, nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.State.Status, r.Tree.Current, "with", r.Tree.LastGood, "to return to")

	// The watchdog counts the starts of the trial; after the last one it rolls back.
	for range 4 {
		r, err = l.Do(context.Background(), func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			s, t = state.CountStart(s, t, "exit status 1", now)
			return s, t, nil
		})
	}
	fmt.Println(r.State.Status, r.Tree.Current, err)
	// Output:
	// pending_health 1.5.0 with 1.4.0 to return to
	// rolled_back 1.4.0 <nil>
}
