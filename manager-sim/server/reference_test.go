package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/reference"
)

func TestReferenceOfTheAPI(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(reference.Header + "# REST of manager-sim\n\nThe shapes of bodies and answers are in `GET /api/v1/openapi.json`. A refusal is `application/problem+json` with `status`, `code` and `detail`.\n\n")
	for _, rt := range new(handlers).table() {
		fmt.Fprintf(&b, "## %s %s\n\n%s. Requires the role `%s`; answers %d.\n\n", rt.method, rt.path, rt.summary, rt.role, rt.success())
		if len(rt.query) > 0 {
			b.WriteString("| query | type | meaning |\n| --- | --- | --- |\n")
			for _, p := range rt.query {
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p.name, p.kind, p.text)
			}
			b.WriteString("\n")
		}
	}
	reference.Check(t, "../..", "rest.md", b.String())
}
