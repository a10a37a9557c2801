package reference

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/bilbycast/edge-agent/release"
)

// Every code has a meaning, every code of a failure has a remedy, and
// docs/reference/codes.md lists them.
func TestReferenceOfTheCodes(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(Header + "# Error codes\n\nThe `error_code` of every event of the category `upgrade`, and of a refused command. [troubleshoot.md](../troubleshoot.md#error-codes) has more on each.\n\n| code | severity | meaning | what to do |\n| --- | --- | --- | --- |\n")
	for _, code := range release.Codes() {
		e := release.Explain(code)
		if e.Meaning == "" {
			t.Errorf("%s has no meaning", code)
		}
		if code.Severity() != release.Info && e.Remedy == "" {
			t.Errorf("%s has no remedy", code)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", code, code.Severity(), e.Meaning, e.Remedy)
	}
	b.WriteString("\nThe `error_code` of an answer to a command to an action of the service's author:\n\n| code | meaning | what to do |\n| --- | --- | --- |\n")
	for _, code := range web.ActionCodes() {
		meaning, remedy := web.Meaning(code)
		if meaning == "" || remedy == "" {
			t.Errorf("%s has no meaning or no remedy", code)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", code, meaning, remedy)
	}
	Check(t, "../..", "codes.md", b.String())
}

// docs/troubleshoot.md has exactly one entry for each code, with the meaning and the
// remedy that the manager's pages and commands show.
func TestTroubleshootHasEveryCode(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/troubleshoot.md")
	if err != nil {
		t.Fatal(err)
	}
	want := append([]string{rollout.TimeLimit}, web.ActionCodes()...)
	for _, code := range release.Codes() {
		want = append(want, string(code))
	}
	entries := regexp.MustCompile("(?ms)^#### `(\\w+)`\n\n(.*?)(?:\n\n|\\z)").FindAllStringSubmatch(string(text), -1)
	var have []string
	for _, m := range entries {
		code, entry := m[1], m[2]
		have = append(have, code)
		meaning, remedy := web.Meaning(code)
		if !strings.Contains(entry, "- **Meaning:** "+meaning+"\n") {
			t.Errorf("the entry of %s does not have the meaning %q", code, meaning)
		}
		if !strings.Contains(entry, "- **Do:** "+remedy) {
			t.Errorf("the entry of %s does not begin what to do with %q", code, remedy)
		}
		if !strings.HasPrefix(entry, "- **You see:** ") {
			t.Errorf("the entry of %s does not begin with what an operator sees", code)
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Errorf("docs/troubleshoot.md has the entries\n%q, want\n%q", have, want)
	}
}

// The program contains each reason that docs/troubleshoot.md quotes for a node that offers
// no upgrades.
func TestTroubleshootQuotesTheReasonsOfNodes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/troubleshoot.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## The node offers no upgrades\n")
	section, _, _ = strings.Cut(section, "\n### ")
	var source strings.Builder
	for _, pattern := range []string{"../../agent/*.go", "../../config/*.go", "../../internal/state/*.go", "../../fsutil/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") {
				source.Write(b)
			}
		}
	}
	quotes := regexp.MustCompile("(?m)^\\| [^|]*`([^`|]+)`[^|]* \\|").FindAllStringSubmatch(section, -1)
	if len(quotes) < 4 {
		t.Fatalf("found only the reasons %q", quotes)
	}
	for _, q := range quotes {
		if !strings.Contains(source.String(), q[1]) {
			t.Errorf("no node reports %q", q[1])
		}
	}
}
