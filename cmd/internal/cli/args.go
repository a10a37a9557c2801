package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// ExactArgs returns a check that a command has n arguments, and the flags that cannot
// be left out. Its errors are errors of usage, and name what is missing or too much by
// the words of the command's Use.
func ExactArgs(n int, flags ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < n:
			what := "an argument"
			if names := argumentNames(cmd.Use); len(args) < len(names) {
				what = names[len(args)]
			}
			return Usage(fmt.Errorf("%s is missing; usage: %s", what, cmd.UseLine()))
		case len(args) > n && cmd.HasSubCommands():
			return noCommand(cmd, args[n])
		case len(args) > n:
			return Usage(fmt.Errorf("%q is an argument too many; usage: %s", args[n], cmd.UseLine()))
		}
		for _, name := range flags {
			if !cmd.Flags().Changed(name) {
				return Usage(fmt.Errorf("--%s is missing; see '%s --help'", name, cmd.CommandPath()))
			}
		}
		return nil
	}
}

// noCommand is the error that cmd has no command with a name.
func noCommand(cmd *cobra.Command, name string) error {
	return Usage(fmt.Errorf("no command %q; see '%s --help'", name, cmd.CommandPath()))
}

// argumentNames returns the arguments in the Use of a command that are neither flags,
// nor values of flags, nor optional.
func argumentNames(use string) []string {
	var names []string
	optional, value := false, false
	for i, word := range strings.Fields(use) {
		begins := strings.HasPrefix(word, "[")
		optional = optional || begins
		switch {
		case i == 0, optional, value:
			value = false
		case strings.HasPrefix(word, "-"):
			value = !strings.Contains(word, "=")
		default:
			names = append(names, word)
		}
		optional = optional && !strings.Contains(word, "]")
	}
	return names
}
