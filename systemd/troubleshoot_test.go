package systemd

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/troubleshoot.md lists exactly the checks of a unit.
func TestTroubleshootHasEveryCheckOfAUnit(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/troubleshoot.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n### The unit\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var have []string
	want := []string{"unit file"} // made first, outside of checks
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		have = append(have, m[1])
	}
	for _, c := range checks {
		want = append(want, c.name)
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("docs/troubleshoot.md lists the checks\n%q, want\n%q", have, want)
	}
}
