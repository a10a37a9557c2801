package web

import (
	"encoding/json"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"strings"
	"testing"
)

func TestExcerptsEndAtAWord(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("some words. ", 40)
	got := excerpt(long)
	if n := len([]rune(got)); n > maxExcerpt+1 || n < maxExcerpt/2 || !strings.HasSuffix(got, "words…") && !strings.HasSuffix(got, "some…") {
		t.Errorf("%d characters: %q", n, got)
	}
	if got := excerpt(strings.Repeat("é", 300)); got != strings.Repeat("é", maxExcerpt)+"…" {
		t.Errorf("one long word: %q", got)
	}
	for _, s := range []string{"", "short.", strings.Repeat("x", maxExcerpt)} {
		if excerpt(s) != s || cut(s) {
			t.Errorf("%q is cut to %q", s, excerpt(s))
		}
	}
}

func TestRefusalsAreInWords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"settle_secs is not 0 to 86400":                                "the settle window in seconds is not 0 to 86400",
		`role "boss" is not one of [viewer operator group_admin]`:      `role "boss" is not one of viewer, operator, group admin`,
		`severity="bad" is not one of [info minor]`:                    `severity "bad" is not one of info, minor`,
		"threshold is not 1 to 100000":                                 "the number of failures that pause is not 1 to 100000",
		"Set enabled = true in [upgrade] of its config.toml.":          "Set enabled = true in [upgrade] of its config.toml.",
		"expires_in_secs = 5 is outside 3600 (1 hour) to 9 (400 days)": "the time to expiry in seconds = 5 is outside 3600 (1 hour) to 9 (400 days)",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// The audit trail shows groups by name, keeps their ids, and shows no null.
func TestAuditDetailsAreWords(t *testing.T) {
	t.Parallel()
	names := map[string]string{"g1": "Site one", "*": "all groups"}
	for raw, want := range map[string]string{
		`{"role":"group_admin","groups":["g1","gone"],"reason":null}`: "groups: Site one (g1), gone; role: group admin; group id: g1",
		`{"groups":["*"],"failure_count":2,"replace":true}`:           "failure count: 2; groups: all groups; replace: yes; group id: g1",
		`{"group_id":""}`: "group: none; group id: g1",
		`null`:            "group id: g1",
		`{"expires_at":"2027-02-24T03:48:27+01:00"}`: "expires at: 2027-02-24 02:48:27 UTC; group id: g1",
		`{"groups":null}`: "group id: g1",
		`["odd"]`:         `details: ["odd"]; group id: g1`,
	} {
		row := auditRows([]api.AuditEntry{{Target: "g1", Details: json.RawMessage(raw)}}, names)[0]
		var parts []string
		for _, d := range row.Pairs {
			parts = append(parts, d.Key+": "+d.Value)
		}
		if got := strings.Join(parts, "; "); got != want || row.TargetName != "Site one" {
			t.Errorf("%s becomes %q of %q, want %q", raw, got, row.TargetName, want)
		}
	}
}
