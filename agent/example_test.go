package agent_test

import (
	"context"
	"os"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/rs/zerolog"
)

// A daemon links its own upgrades: `player run --config FILE`. When Run returns nil, the
// process ends, and systemd starts the version that `current` points to.
func Example() {
	c, err := config.Load("/opt/acme/player/config.toml")
	if err != nil {
		panic(err)
	}
	a, err := agent.New(c, agent.Options{
		Version: "1.5.0", // as it was stamped when it was built
		Signers: []verify.Signer{{
			Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/player",
			Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*",
		}},
		Notify: systemd.Notify, Log: zerolog.New(os.Stderr),
		Check: func(context.Context) error { return nil }, // is the player playing?
	})
	if err != nil {
		panic(err)
	}
	if err := a.Run(context.Background()); err != nil {
		panic(err) // the trial of this version failed
	}
}
