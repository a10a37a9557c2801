package state_test

import (
	"context"
	"fmt"
	"os"
	"time"

	engine "github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
)

// node makes an install root in which 1.5.0 is on trial.
func node() (root string, err error) {
	if root, err = os.MkdirTemp("", "example"); err != nil {
		return "", err
	}
	l, err := engine.At(root)
	if err == nil {
		err = l.Make()
	}
	old, target := release.MustVersion("1.4.0"), release.MustVersion("1.5.0")
	for _, v := range []release.Version{old, target} {
		if err == nil {
			err = os.Mkdir(l.Version(v), 0o755)
		}
	}
	if err != nil {
		return root, err
	}
	_, err = l.Do(context.Background(), func(s engine.State, t engine.Tree, now time.Time) (engine.State, engine.Tree, error) {
		s = engine.Install(s, engine.Trial{Target: old}, now)
		s = engine.Begin(s, engine.Trial{ID: "c1", Target: target, MaxAttempts: 3}, now)
		t.LastGood, t.Previous, t.Current = old, old, target
		return s, t, nil
	})
	return root, err
}

// A program beside the service shows what its node does.
func ExampleRead() {
	root, err := node()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)
	n, err := state.Read(root)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(n.Status, n.Current, "with", n.LastGood, "to return to")
	// Output:
	// pending_health 1.5.0 with 1.4.0 to return to
}
