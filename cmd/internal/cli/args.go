package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// ExactArgs returns a check that a command has n arguments and the required flags. Its
// errors are usage errors, and name a missing argument as the command's Use does.
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
			return unknownCommand(cmd, args[n])
		case len(args) > n:
			return Usage(fmt.Errorf("unexpected argument %q; usage: %s", args[n], cmd.UseLine()))
		}
		for _, name := range flags {
			if !cmd.Flags().Changed(name) {
				return Usage(fmt.Errorf("--%s is missing; see '%s --help'", name, cmd.CommandPath()))
			}
		}
		return nil
	}
}

// unknownCommand returns the error that cmd has no command of this name.
func unknownCommand(cmd *cobra.Command, name string) error {
	return Usage(fmt.Errorf("unknown command %q; see '%s --help'", name, cmd.CommandPath()))
}

// argumentNames returns the required arguments in the Use of a command, without flags
// and their values.
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
