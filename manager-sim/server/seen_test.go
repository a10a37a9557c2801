package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/fleet"
)

// act posts an act on a rollout with the header If-Match, unless that is "".
func (m *manager) act(path, act, match, body string) (*http.Response, string) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodPost, m.http.URL+path+"/"+act, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	if match != "" {
		req.Header.Set("If-Match", match)
	}
	resp, err := m.http.Client().Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp, string(b)
}

// Resume, retry and skip need the revision of what their requester saw, and are refused if
// it has changed. Pause and abort never need one.
func TestActsNameWhatWasSeen(t *testing.T) {
	t.Parallel()
	m := start(t)
	g, _ := m.group(4, func(int, string) fleet.Outcome { return fleet.Refused })
	var plan struct {
		RolloutID string `json:"rollout_id"`
	}
	m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.1.0","settle_secs":0}`, &plan)
	path := "/api/v1/rollouts/" + plan.RolloutID
	m.until("the pause", func() bool { return m.rollout(plan.RolloutID).Status == "paused" })
	before := m.rollout(plan.RolloutID)
	refused := func(status int, code, text, act, match, body string) {
		t.Helper()
		resp, got := m.act(path, act, match, body)
		if resp.StatusCode != status || !strings.Contains(got, `"code":"`+code+`"`) || !strings.Contains(got, text) {
			t.Errorf("%s %q %q: %d %s, want %d %s", act, match, body, resp.StatusCode, got, status, code)
		}
		if r := m.rollout(plan.RolloutID); r.Status != "paused" {
			t.Fatalf("%s changed the rollout: %s", act, r.Status)
		}
	}
	skip := fmt.Sprintf(`{"node_id":%q}`, before.Nodes[3].ID)
	for act, body := range map[string]string{"resume": "", "retry": `{"reason":"x"}`, "skip": skip} {
		refused(428, "precondition_required", "ETag", act, "", body)
		refused(428, "precondition_required", "ETag", act, "*", body)
		refused(412, "precondition_failed", "changed since", act, `"another"`, body)
	}
	refused(400, "bad_request", "differ", "resume", `"a"`, `{"revision":"b"}`)

	resp, body := m.act(path, "skip", `"`+before.Decision+`"`, skip)
	if etag := resp.Header.Get("ETag"); resp.StatusCode != 200 || etag == "" || etag == `"`+before.Decision+`"` || etag != `"`+m.rollout(plan.RolloutID).Decision+`"` {
		t.Fatalf("%d, ETag %s: %s", resp.StatusCode, etag, body)
	}
	refused(412, "precondition_failed", "since then 1 more node left out: "+before.Nodes[3].ID, "resume", `"`+before.Decision+`"`, "")
	refused(412, "precondition_failed", "left out", "retry", "", fmt.Sprintf(`{"revision":%q}`, before.Decision))
	refused(412, "precondition_failed", "", "resume", `"a", W/"b"`, "")
	if resp, body := m.act(path, "resume", `"a", W/`+resp.Header.Get("ETag")+`,"b"`, ""); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for _, act := range []string{"pause", "abort"} {
		if resp, body := m.act(path, act, `"another"`, ""); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", act, resp.StatusCode, body)
		}
	}
	if resp, body := m.act(path, "resume", `"another"`, ""); resp.StatusCode != http.StatusConflict {
		t.Errorf("after its end: %d %s", resp.StatusCode, body)
	}
}
