//go:build !sim

package upgrade_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/upgrade"
)

// A program stages the release on a stick for the next start of its service. The same
// checks apply as to a manager's command.
func Example() {
	err := func(ctx context.Context) error {
		node, err := config.Read("/opt/acme/player/config.toml")
		if err != nil {
			return err
		}
		p, err := upgrade.New(upgrade.Config{Node: &node})
		if err != nil {
			return err
		}
		src, _, err := p.Open("/media/stick/1.5.0.tar")
		if err != nil {
			return err
		}
		defer src.Close()
		rel, err := p.Run(ctx, src, upgrade.Request{End: upgrade.Swap})
		if err != nil {
			return err
		}
		fmt.Println(rel.Manifest().Version, "runs at the next start, on trial")
		return nil
	}(context.Background())
	fmt.Println(err)
}

// A release without a valid signature is refused. Nothing is installed.
func ExamplePipeline_Examine() {
	err := func(ctx context.Context) error {
		stick, err := os.MkdirTemp("", "example")
		if err != nil {
			return err
		}
		defer os.RemoveAll(stick)
		for _, name := range []string{"manifest.json", "manifest.sig.bundle"} {
			if err := os.WriteFile(filepath.Join(stick, name), []byte(`{"version":"1.5.0"}`), 0o600); err != nil {
				return err
			}
		}
		p, err := upgrade.New(upgrade.Config{}) // for no node: only the signature counts
		if err != nil {
			return err
		}
		src, version, err := p.Open(stick)
		if err != nil {
			return err
		}
		defer src.Close()
		e, err := p.Examine(ctx, src, version)
		if err != nil {
			return err
		}
		fmt.Println("signed:", e.Release.OK())
		fmt.Println("refused:", release.CodeOf(e.Refused))
		return nil
	}(context.Background())
	fmt.Println(err)
	// Output:
	// signed: false
	// refused: upgrade_signature_invalid
	// <nil>
}

// With upgrade.manual_only a release that is staged waits for an operator.
// Apply puts it on trial at the next start.
func ExampleApply() {
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
		running, staged := release.MustVersion("1.4.0"), release.MustVersion("1.5.0")
		for _, v := range []release.Version{running, staged} {
			if err := os.MkdirAll(root.Version(v), 0o755); err != nil {
				return err
			}
		}
		// What a Pipeline leaves with the End Shelve.
		r, err := root.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			t.LastGood, t.Current = running, running
			s = state.Install(s, state.Trial{Target: running}, now)
			return state.Shelve(s, state.Trial{ID: "stick", Target: staged, MaxAttempts: 3}, now), t, nil
		})
		if err != nil {
			return err
		}
		fmt.Println(r.State.Status, r.Tree.Current)
		if r, err = upgrade.Apply(ctx, root, upgrade.Running{}); err != nil {
			return err
		}
		fmt.Println(r.State.Status, r.Tree.Current, "with", r.Tree.Previous, "to return to")
		return nil
	}(context.Background())
	fmt.Println(err)
	// Output:
	// staged_manual 1.4.0
	// pending_health 1.5.0 with 1.4.0 to return to
	// <nil>
}
