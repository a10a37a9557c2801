package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

// The checks of flags. Their errors are errors of usage, and name the flag and the rule.

// roles are those that a token can have, the least first.
var roles = []string{"viewer", "operator", "group_admin", "super_admin"}

// How long a token can be valid.
const (
	minExpires = time.Hour
	maxExpires = 400 * 24 * time.Hour
)

// maxSettleSecs and maxThreshold bound what a rollout is started with.
const (
	maxSettleSecs = 86400
	maxThreshold  = 100000
)

func checkOneOf(flag, value string, of ...string) error {
	if !slices.Contains(of, value) {
		return cli.Usage(fmt.Errorf("--%s %q is none of %s", flag, value, strings.Join(of, ", ")))
	}
	return nil
}

func checkRange(flag string, value, least, most int) error {
	if value < least || value > most {
		return cli.Usage(fmt.Errorf("--%s %d is not %d to %d", flag, value, least, most))
	}
	return nil
}

// checkVersion accepts a version, and no text at all: the flag was not given.
func checkVersion(flag, value string) error {
	if value == "" {
		return nil
	}
	if _, err := release.ParseVersion(value); err != nil {
		return cli.Usage(fmt.Errorf("--%s: %w", flag, err))
	}
	return nil
}

func checkExpires(d time.Duration) error {
	if d < minExpires || d > maxExpires {
		return cli.Usage(fmt.Errorf("--expires %v is not 1h to %v, which is 400 days", d, maxExpires))
	}
	return nil
}

// checkTimeout refuses a time limit that is below 0, or that limits nothing.
func checkTimeout(cmd *cobra.Command, timeout time.Duration, wait bool) error {
	switch {
	case timeout < 0:
		return cli.Usage(fmt.Errorf("--timeout %v is below 0s", timeout))
	case cmd.Flags().Changed("timeout") && !wait:
		return cli.Usage(errors.New("--timeout limits the waiting of --wait, which is missing"))
	}
	return nil
}

// checkStart checks the flags of a rollout.
func checkStart(strategy string, settle, threshold int) error {
	for _, err := range []error{
		checkOneOf("strategy", strategy, rollout.Staged, rollout.Immediate),
		checkRange("settle-secs", settle, 0, maxSettleSecs), checkRange("threshold", threshold, 1, maxThreshold),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkPublish checks the flags of a release.
func checkPublish(cmd *cobra.Command, o fakerelease.Options) error {
	if o.Version == "" {
		return cli.Usage(errors.New("--version is empty"))
	}
	for _, err := range []error{checkVersion("version", o.Version), checkVersion("rollback-floor", o.RollbackFloor)} {
		if err != nil {
			return err
		}
	}
	if cmd.Flags().Changed("fault") {
		var names []string
		for _, f := range fakerelease.Faults() {
			names = append(names, f[0])
		}
		if err := checkOneOf("fault", string(o.Fault), names...); err != nil {
			return err
		}
	}
	for flag, name := range map[string]string{"channel": o.Channel, "device-type": o.DeviceType, "variant": o.Variant, "arch": o.Arch} {
		if err := release.CheckName("--"+flag, name); name != "" && err != nil {
			return cli.Usage(err)
		}
	}
	return nil
}
