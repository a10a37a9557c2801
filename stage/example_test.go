package stage_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/verify"
)

// A node uses package upgrade, which runs these steps with the node's policy and its
// rollback floors. Package stage alone is for a program with rules of its own: here a
// lab rig, which takes any genuine release for its machine and applies it by hand.
func Example() {
	err := func(ctx context.Context) error {
		root, err := state.At("/opt/acme/player")
		if err != nil {
			return err
		}
		trust, err := verify.Load(verify.DefaultSigners())
		if err != nil {
			return err
		}
		stager, err := stage.New(stage.Config{Layout: root, Trust: trust, Binary: "player", KeepVersions: 3})
		if err != nil {
			return err
		}
		source, err := stage.OpenSource("/media/stick/1.5.0.tar")
		if err != nil {
			return err
		}
		defer source.Close()
		rel, err := stager.Fetch(ctx, source) // only a verified release can be staged
		if err != nil {
			return err
		}
		for _, artefact := range rel.Manifest().Artefacts { // the rig's rule: its architecture
			if artefact.Arch != release.HostArch() {
				continue
			}
			staged, err := stager.Stage(ctx, source, rel, artefact, func() {})
			if err != nil {
				return err
			}
			_, err = stage.Shelve(ctx, root, staged, state.Trial{ID: "rig-1", MaxAttempts: 3})
			return err
		}
		return fmt.Errorf("no tarball for %s", release.HostArch())
	}(context.Background())
	fmt.Println(err)
}

// Prune keeps the newest versions and those that a link points to.
func ExamplePrune() {
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
		for _, v := range []string{"1.0.0", "1.1.0", "1.2.0", "1.3.0"} {
			if err := os.MkdirAll(root.Version(release.MustVersion(v)), 0o755); err != nil {
				return err
			}
		}
		running := release.MustVersion("1.1.0")
		_, err = root.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			t.LastGood, t.Current = running, running
			return state.Install(s, state.Trial{Target: running}, now), t, nil
		})
		if err != nil {
			return err
		}
		if err := stage.Prune(ctx, root, 2, running); err != nil {
			return err
		}
		t, err := root.Tree()
		fmt.Println(t.Versions)
		return err
	}(context.Background())
	fmt.Println(err)
	// Output:
	// [1.3.0 1.1.0]
	// <nil>
}
