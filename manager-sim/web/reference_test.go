package web

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/reference"
	"github.com/bilbycast/edge-agent/release"
)

// Every code has a meaning and a remedy, and the reference has them.
func TestReferenceOfTheCodes(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(reference.Header + "# Error codes\n\nThe `error_code` of every event of the category `upgrade`, and of a refused command.\n\n| code | severity | meaning | what to do |\n| --- | --- | --- | --- |\n")
	for _, code := range release.Codes() {
		text, ok := help[string(code)]
		if !ok {
			if text[0], ok = lifecycle[code]; !ok {
				t.Errorf("%s has no meaning", code)
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", code, code.Severity(), text[0], text[1])
	}
	reference.Check(t, "../..", "codes.md", b.String())
}

// lifecycle is what the codes of an upgrade mean that goes well.
var lifecycle = map[release.Code]string{
	release.Started:      "The node's own policy allows the command.",
	release.Downloaded:   "Signature, signer and log entry of the manifest are right, and the SHA-256 of the archive.",
	release.Staged:       "Unpacked and synced, its self-check ran, and the service restarts into it.",
	release.StagedManual: "Staged; an operator applies it on the node: `edge-agent apply`.",
	release.Completed:    "The new version authenticated to the manager and stayed healthy.",
}
