package main

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/spf13/cobra"
)

// An invalid value of a flag is wrong usage, and no manager is needed to detect it.
func TestWrongValuesOfFlags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for args, want := range map[string]string{
		"token create ci --role king":                        `--role "king" is none of viewer, operator`,
		"token create ci --role viewer --expires 1m":         "--expires 1m0s is not 1h to",
		"token create ci --role viewer --expires 0s":         "--expires 0s is not 1h to",
		"token create ci --role viewer --expires 9601h":      "--expires 9601h0m0s is not 1h to",
		"rollout start g 1.1.0 --settle-secs -1":             "--settle-secs -1 is not 0 to 86400",
		"rollout start g 1.1.0 --settle-secs 86401":          "--settle-secs 86401 is not 0 to 86400",
		"rollout start g 1.1.0 --threshold -3":               "--threshold -3 is not 1 to 100000",
		"rollout start g 1.1.0 --threshold 0":                "--threshold 0 is not 1 to 100000",
		"rollout start g 1.1.0 --strategy foo":               `--strategy "foo" is none of staged, immediate`,
		"rollout start g 1.1.0 --timeout 1h":                 "--timeout limits the waiting of --wait",
		"rollout start g 1.1.0 --wait --timeout -1s":         "--timeout -1s is below 0s",
		"rollout start g 1.1.0 --dry-run --timeout 1h":       "--timeout limits the waiting of --wait",
		"rollout resume g --timeout 1h":                      "--timeout limits the waiting of --wait",
		"rollout retry g --timeout 1h":                       "--timeout limits the waiting of --wait",
		"upgrade n 1.1.0 --timeout 1h":                       "--timeout limits the waiting of --wait",
		"upgrade n 1.1.0 --wait --timeout -1s":               "--timeout -1s is below 0s",
		"release publish --version bad":                      `--version: version "bad"`,
		"release publish --version=":                         "--version is empty",
		"release publish --version 1.0.0 --fault no":         `--fault "no" is none of `,
		"release publish --version 1.0.0 --fault=":           `--fault "" is none of `,
		"release publish --version 1.0.0 --channel a/b":      "--channel",
		"release publish --version 1.0.0 --rollback-floor x": `--rollback-floor: version "x"`,
		"release bundle --version bad --out o.tar":           `--version: version "bad"`,
		"node run --version bad":                             `--version: version "bad"`,
		"node show":                                          "NODE is missing; usage: manager-sim node show NODE",
		"token revoke":                                       "TOKEN is missing; usage: ",
		"upgrade n":                                          "VERSION is missing; usage: ",
	} {
		fields := strings.Fields(args)
		if _, errs, code := runIn(t, dir, fields...); code != cli.Misuse || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %s", args, code, errs)
		}
	}
}

// A value that the manager refuses is wrong usage, too.
func TestValuesThatTheManagerRefuses(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	m.group("site one", nil)
	for _, args := range [][]string{{"token", "create", "a b\x1b", "--role", "viewer"}, {"rollout", "start", "site one", "1.1.0", "--channel", "a/b"}} {
		if _, errs, code := m.run(args...); code != cli.Misuse {
			t.Errorf("%q: %d %s", args, code, errs)
		}
	}
}

// Backquotes in the help of a flag would name its value: pflag prints "--dir serve".
func TestHelpHasNoBackquotes(t *testing.T) {
	t.Parallel()
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if text := cmd.Flags().FlagUsages(); strings.Contains(text, "--dir serve") || strings.Contains(text, "--url serve") {
			t.Errorf("%s --help prints\n%s", cmd.CommandPath(), text)
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRootCmd())
}
