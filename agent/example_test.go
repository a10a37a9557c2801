package agent_test

import (
	"context"
	"os"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/rs/zerolog"
)

// A daemon links its own upgrades: `player run --config FILE`. When Run returns nil, the
// process ends, and systemd starts the version that `current` points to.
func Example() {
	c, err := agent.Load("/opt/acme/player/config.toml")
	if err != nil {
		panic(err)
	}
	c.Version = "1.5.0" // as it was stamped when it was built
	c.Signers = []verify.Signer{{
		Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/player",
		Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*",
	}}
	c.Notify, c.Log = systemd.Notify, zerolog.New(os.Stderr)
	c.Check = func(context.Context) error { return nil } // is the player playing?
	a, err := agent.New(c)
	if err != nil {
		panic(err)
	}
	if err := a.Run(context.Background()); err != nil {
		panic(err) // the trial of this version failed
	}
}
