//go:build !sim

package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
)

// A daemon links its own upgrades: `player run --config FILE`. When Run returns nil, the
// process ends, and systemd starts the version that `current` points to.
func Example() {
	c, warnings, err := config.Open("/opt/acme/player/config.toml")
	if err != nil {
		panic(err)
	}
	a, err := agent.New(c.Config, agent.Options{
		Version:  "1.5.0", // as it was stamped when it was built
		Warnings: warnings,
		Signers: []verify.Signer{{
			Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/player",
			Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*",
		}},
		Notify: systemd.Notify, Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)),
		Check: func(context.Context) error { return nil }, // is the player playing?
	})
	if err != nil {
		panic(err)
	}
	if err := a.Run(context.Background()); err != nil {
		panic(err) // the trial of this version failed
	}
}

// The manager can send this player the command set_gain, and shows what it returns.
func ExampleHandlers() {
	gain := 0.0
	handlers := agent.Handlers{
		"set_gain": func(_ context.Context, c agent.Command) (any, error) {
			var p struct{ DB *float64 }
			if err := json.Unmarshal(c.Params, &p); err != nil || p.DB == nil {
				return nil, errors.New(`want {"db": NUMBER}`) // the command has failed
			}
			was := gain
			gain = *p.DB
			return map[string]float64{"was": was}, nil
		},
	}
	_ = agent.Options{Version: "1.5.0", Handlers: handlers, HandlerTimeout: 5 * time.Second}
	result, err := handlers["set_gain"](context.Background(), agent.Command{Params: json.RawMessage(`{"db": 3}`)})
	fmt.Println(result, err)
	// Output: map[was:0] <nil>
}

// A stable version is ready at once, without its manager. Run returns nil when its
// context ends.
func ExampleAgent_Run() {
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
		installed := release.MustVersion("1.5.0")
		if err := os.MkdirAll(root.Version(installed), 0o755); err != nil {
			return err
		}
		_, err = root.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			t.LastGood, t.Current = installed, installed
			return state.Install(s, state.Trial{Target: installed}, now), t, nil
		})
		if err != nil {
			return err
		}
		stopped, stop := context.WithCancel(ctx)
		a, err := agent.New(config.Config{
			Service: config.Service{DeviceType: "player", Binary: "player", InstallRoot: dir},
			Manager: config.Manager{URLs: []string{"wss://manager.example:8443"}, RegistrationToken: config.NewSecret("token")},
		}, agent.Options{
			Version: installed.String(), Log: slog.New(slog.DiscardHandler),
			Notify: func(s string) error {
				if strings.Contains(s, "READY=1") {
					fmt.Println("ready")
					stop() // a service ends it by SIGTERM
				}
				return nil
			},
		})
		if err != nil {
			stop()
			return err
		}
		return a.Run(stopped)
	}(context.Background())
	fmt.Println(err)
	// Output:
	// ready
	// <nil>
}
