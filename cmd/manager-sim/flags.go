package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

// The checks of flags. Their errors are usage errors, and name the flag and the rule. The
// bounds are those of the API.

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

// checkVersion accepts a version, and "": the flag was not set.
func checkVersion(flag, value string) error {
	if value == "" {
		return nil
	}
	if _, err := release.ParseVersion(value); err != nil {
		return cli.Usage(fmt.Errorf("--%s: %w", flag, err))
	}
	return nil
}

// checkRole accepts the roles of a token.
func checkRole(role string) error {
	var names []string
	for _, r := range api.Roles() {
		names = append(names, string(r))
	}
	return checkOneOf("role", role, names...)
}

func checkExpires(d time.Duration) error {
	if d < api.MinTokenLife || d > api.MaxTokenLife {
		return cli.Usage(fmt.Errorf("--expires %v is not 1h to %v, which is 400 days", d, api.MaxTokenLife))
	}
	return nil
}

// checkTimeout refuses a negative time limit, and one without --wait.
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
		checkRange("settle-secs", settle, 0, api.MaxSettleSecs), checkRange("threshold", threshold, 1, api.MaxThreshold),
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
