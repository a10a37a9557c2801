// Command node is a device of the benchmark: it upgrades one install root from a release
// host, by the same pipeline as the agent.
//
//	node prepare ROOT          makes a root whose version is 1.0.0
//	node upgrade ROOT VERSION  fetches, verifies, stages and swaps a version
//
// An agent runs before an upgrade is requested: upgrade writes "ready" when it has started,
// and goes on when there is a line in its standard input.
//
// It is built with the tag sim, and trusts the directory that $EDGE_AGENT_SIM_TRUST
// names. It has no manager, restarts nothing and runs no trial.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/footprint"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/upgrade"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: node prepare ROOT | upgrade ROOT VERSION")
	}
	n, err := settings(args[1])
	if err != nil {
		return err
	}
	switch {
	case args[0] == "prepare" && len(args) == 2:
		return prepare(ctx, n)
	case args[0] == "upgrade" && len(args) == 3:
		return upgradeTo(ctx, n, args[2])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func settings(root string) (config.Settings, error) {
	return config.Config{
		Service: config.Service{DeviceType: "edge", InstallRoot: root, Binary: "edge-agent"},
		Manager: config.Manager{URLs: []string{}, Proxy: config.NewSecret("none")},
		Upgrade: config.Upgrade{Enabled: true},
	}.Resolve()
}

// prepare makes the first version by hand: it is not part of what is measured.
func prepare(ctx context.Context, n config.Settings) error {
	good := release.MustVersion("1.0.0")
	dir := n.Layout.Version(good)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, n.Service.Binary), []byte("#!/bin/sh\n"), 0o755); err != nil {
		return err
	}
	_, err := n.Layout.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		t.LastGood, t.Current = good, good
		return state.Install(s, state.Trial{Target: good}, now), t, nil
	})
	return err
}

func upgradeTo(ctx context.Context, n config.Settings, version string) error {
	v, err := release.ParseVersion(version)
	if err != nil {
		return err
	}
	p, err := upgrade.New(upgrade.Config{Node: &n, Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)),
		Verified: func() { go footprint.Shrink() }}) // as edge-agent does
	if err != nil {
		return err
	}
	// As edge-agent does: it has a link to its manager, and idles.
	cert.System()
	footprint.Shrink()
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	src := p.Host(v)
	defer src.Close()
	// What the agent records of a manager's command; one that goes on is recorded already.
	const command = "bench"
	do := func(change func(state.State, time.Time) state.State) error {
		_, err := n.Layout.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			return change(s, now), t, nil
		})
		return err
	}
	err = do(func(s state.State, now time.Time) state.State {
		if _, known := s.Command(command); known {
			return s
		}
		return state.Start(s, state.Command{ID: command, Version: v, From: release.MustVersion("1.0.0")}, now)
	})
	if err != nil {
		return err
	}
	var recorded error
	_, err = p.Run(ctx, src, upgrade.Request{Version: v, CommandID: command, End: upgrade.Swap, Downloaded: func() {
		recorded = do(func(s state.State, now time.Time) state.State { return state.Downloaded(s, command, now) })
	}})
	return errors.Join(err, recorded)
}
