package upgrade_test

import (
	"context"
	"fmt"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/upgrade"
)

// A program stages the release on a stick for the next start of its service. The
// same checks apply as to a manager's command.
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

// A release is checked, and not installed.
func ExamplePipeline_Examine() {
	err := func(ctx context.Context) error {
		p, err := upgrade.New(upgrade.Config{}) // for no node: the signature counts
		if err != nil {
			return err
		}
		src, version, err := p.Open("https://github.com/acme/player/releases/download/v1.5.0")
		if err != nil {
			return err
		}
		defer src.Close()
		e, err := p.Examine(ctx, src, version)
		if err != nil {
			return err
		}
		if e.Refused != nil {
			return fmt.Errorf("%s: %w", release.CodeOf(e.Refused), e.Refused)
		}
		fmt.Println("signed by", e.Release.Signature().Workflow)
		return nil
	}(context.Background())
	fmt.Println(err)
}
