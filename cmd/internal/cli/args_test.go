package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestArgumentNames(t *testing.T) {
	t.Parallel()
	for use, want := range map[string][]string{
		"list": nil, "upgrade NODE VERSION": {"NODE", "VERSION"}, "check --repository OWNER/REPO --workflow PATH DIR": {"DIR"},
		"publish --version X.Y.Z [PROGRAM]": nil, "show [--root DIR] FILE": {"FILE"}, "set --to=X FILE": {"FILE"},
	} {
		if got := argumentNames(use); !slices.Equal(got, want) {
			t.Errorf("%q: %q", use, got)
		}
	}
}

// An error names the missing or unexpected argument.
func TestArgumentErrors(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"node bogus":        `root: unknown command "bogus"; see 'root node --help'` + "\n",
		"bogus":             `root: unknown command "bogus"; see 'root --help'` + "\n",
		"bogus --dir x":     `root: unknown command "bogus"; see 'root --help'` + "\n",
		"node bogus --it x": `root: unknown command "bogus"; see 'root node --help'` + "\n",
		"node show":         "root: NODE is missing; usage: root node show NODE VERSION [flags]\n",
		"node show n":       "root: VERSION is missing; usage: root node show NODE VERSION [flags]\n",
		"node show n v w x": `root: unexpected argument "w"; usage: root node show NODE VERSION [flags]` + "\n",
		"node --bogus":      "root: unknown flag: --bogus\n",
		"node list x":       `root: unexpected argument "x"; usage: root node list [flags]` + "\n",
		"node list":         "root: --it is missing; see 'root node list --help'\n",
	} {
		none := func(*cobra.Command, []string) error { return nil }
		list := &cobra.Command{Use: "list", Args: ExactArgs(0, "it"), RunE: none}
		list.Flags().String("it", "", "")
		node := &cobra.Command{Use: "node", Args: ExactArgs(0), RunE: none}
		node.AddCommand(&cobra.Command{Use: "show NODE VERSION", Args: ExactArgs(2), RunE: none}, list)
		root := &cobra.Command{Use: "root"}
		root.AddCommand(node)
		var out bytes.Buffer
		if code := Run(t.Context(), root, strings.Fields(args), &out, &out); code != Misuse || out.String() != want+"Run 'root --help' for usage.\n" {
			t.Errorf("%q: exit code %d, %q", args, code, out.String())
		}
	}
}
