package web_test

import (
	"net/url"
	"strings"
	"testing"
)

// An operator can declare a version the repair, on both forms. The plan says so, and the
// confirmation keeps it.
func TestRepairs(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	f.on("POST /api/v1/nodes/{id}/upgrade", 409, refusal(409, "upgrade_in_progress", "staging"))
	const box = `<input type="checkbox" name="repair" value="yes"`
	has(t, p.get("/admin/nodes/changed-1/upgrade", 200), box+">")
	form := url.Values{"version": {"1.1.0"}, "channel": {"stable"}, "repair": {"yes"}}
	_, body := p.post("/admin/nodes/changed-1/upgrade", 409, form)
	has(t, body, box+" checked>")
	if want := `POST /api/v1/nodes/changed-1/upgrade {"channel":"stable","repair":true,"version":"1.1.0"}`; f.last() != want {
		t.Errorf("%s, want %s", f.last(), want)
	}
	has(t, p.get("/admin/groups/g1/upgrade", 200), box+">")
	_, body = p.post("/admin/groups/g1/upgrade", 200, form)
	has(t, body, "The version is the repair: nodes accept it even if their own check fails now.", `<input type="hidden" name="repair" value="yes">`)
	if !strings.Contains(f.last(), `"repair":true`) || !strings.Contains(f.last(), `"dry_run":true`) {
		t.Errorf("the plan: %s", f.last())
	}
	form.Del("repair")
	_, body = p.post("/admin/groups/g1/upgrade", 200, form)
	hasNot(t, body, `name="repair"`)
	if strings.Contains(f.last(), "repair") {
		t.Errorf("without it: %s", f.last())
	}
}
