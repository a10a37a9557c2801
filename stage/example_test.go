package stage_test

import (
	"context"
	"fmt"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/verify"
)

// The way of a release from a directory into versions/, and into `current`: only a
// verified release can be staged, and only a staged one swapped.
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
		source, err := stage.OpenSource("/media/stick/1.5.0.tar")
		if err != nil {
			return err
		}
		defer source.Close()
		stager, err := stage.New(stage.Config{Layout: root, Trust: trust, Binary: "player", KeepVersions: 3})
		if err != nil {
			return err
		}
		rel, err := stager.Fetch(ctx, source) // reads and verifies the manifest
		if err != nil {
			return err
		}
		host := release.Host{DeviceType: "player", Arch: release.HostArch(), Variant: release.DefaultVariant}
		request, err := release.NewRequest("1.5.0", release.DefaultChannel, "", "", host)
		if err != nil {
			return err
		}
		artefact, err := release.Policy{Enabled: true, Channels: []string{release.DefaultChannel}}.Select(rel.Manifest(), request, host)
		if err != nil {
			return err
		}
		staged, err := stager.Stage(ctx, source, rel, artefact, func() {})
		if err != nil {
			return err
		}
		_, err = stage.Swap(ctx, root, staged, state.Trial{ID: "stick-1", Channel: request.Channel, MaxAttempts: 3})
		return err // the next start of the service is the trial
	}(context.Background())
	fmt.Println(err)
}
