package web_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// The forms of a rollout send the revision that the page shows; a refusal because of it shows
// what is new, over the forms of the present state. The page names the pinned manifests, and
// the two of a node that runs another release.
func TestFormsSendWhatWasSeen(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	f.on("GET /api/v1/rollouts/r9", 200, object{"id": "r9", "group_id": "g1", "group_name": "Site one", "version": "1.2.0", "status": "paused", "waves": []int{2}, "decision": "d.9",
		"manifests": object{"edge": a}, "nodes": []object{
			{"id": "n1", "state": "failed", "attempt": 1, "code": rollout.OtherManifest, "message": "it runs the manifest " + b + "; the rollout pinned " + a}, {"id": "n2", "state": "waiting"}}})
	body := p.get("/admin/rollouts/r9", 200)
	has(t, body, "Manifest of edge", a, "runs another release", b, "Publish it as a new version")
	if k := strings.Count(body, `<input type="hidden" name="revision" value="d.9">`); k != 4 {
		t.Errorf("%d forms have the revision: resume, retry, and skip of two nodes", k)
	}
	for _, act := range []string{"resume", "retry", "skip"} {
		f.on("POST /api/v1/rollouts/r9/"+act, 412, refusal(412, "precondition_failed", "since then 2 more nodes failed: x, y"))
		_, body := p.post("/admin/rollouts/r9/"+act, 412, url.Values{"revision": {"d.8"}})
		has(t, body, "since then 2 more nodes failed: x, y", `name="revision" value="d.9"`)
		if want := "POST /api/v1/rollouts/r9/" + act + ` {"revision":"d.8"}`; f.last() != want {
			t.Errorf("%s, want %s", f.last(), want)
		}
	}
}
