// Package reference keeps docs/reference current: its files are generated from the code
// by tests, which fail when a file differs from what the code says.
package reference

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// UpdateEnv makes the tests write the files instead of comparing them.
const UpdateEnv = "EDGE_AGENT_UPDATE_REFERENCE"

// Check compares a file of docs/reference with its text, or writes it if UpdateEnv is
// set. root is the path to the module's directory.
func Check(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, "docs", "reference", name)
	text = strings.TrimRight(text, "\n") + "\n"
	if os.Getenv(UpdateEnv) != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != text {
		t.Errorf("%s is not what the code says (%v): run the tests with %s=1", path, err, UpdateEnv)
	}
}

// Header begins each file.
const Header = "<!-- Generated from the code; do not edit. CONTRIBUTING.md says how. -->\n\n"

// seeAlso is the list of related commands, which links files that there are not.
var seeAlso = regexp.MustCompile(`(?s)### SEE ALSO\n.*?(\n## |$)`)

// Commands describes a command and all below it.
func Commands(root *cobra.Command) (string, error) {
	var b bytes.Buffer
	b.WriteString(Header + "# " + root.Name() + "\n\n")
	root.DisableAutoGenTag = true
	root.InitDefaultHelpFlag()
	if err := add(&b, root); err != nil {
		return "", err
	}
	return b.String(), nil
}

func add(b *bytes.Buffer, c *cobra.Command) error {
	var one bytes.Buffer
	if err := doc.GenMarkdown(c, &one); err != nil {
		return err
	}
	text := seeAlso.ReplaceAllString(one.String(), "$1")
	text = strings.ReplaceAll(text, "### Options inherited from parent commands", "### Options of the commands above")
	b.WriteString(strings.TrimSpace(text) + "\n\n")
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "completion" && sub.Name() != "help" {
			sub.DisableAutoGenTag = true
			if err := add(b, sub); err != nil {
				return err
			}
		}
	}
	return nil
}
