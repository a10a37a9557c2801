package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// Pages that are followed by "next" have each entry once, even if entries are added
// meanwhile.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, _ := m.register()
	add := func(from, to int) {
		for i := from; i < to; i++ {
			n.send(event(fmt.Sprint("e", i)))
			n.next()
		}
	}
	add(0, 7)
	var page struct {
		Events []struct {
			Seq int64
		}
		Total int
		Next  string
	}
	var got []int64
	for after := ""; ; after = "&after=" + page.Next {
		page.Next = ""
		m.into(200, "GET", "/api/v1/events?per_page=3"+after, "", &page)
		for _, e := range page.Events {
			got = append(got, e.Seq)
		}
		if page.Next == "" {
			break
		}
		add(len(got)+100, len(got)+103)
	}
	if len(got) != 8 || !slices.IsSortedFunc(got, func(a, b int64) int { return int(b - a) }) { // 7 and the one of register
		t.Errorf("the pages have %v", got)
	}
	for _, path := range []string{"/api/v1/events?after=x", "/api/v1/audit-log?after=-1", "/api/v1/audit-log?limit=1001", "/api/v1/nodes?limit=0", "/api/v1/nodes?after=nobody"} {
		m.into(http.StatusBadRequest, "GET", path, "", nil)
	}
}

// A request with a key is carried out once, and repetitions get the same answer. The
// same key with another request is refused.
func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, ack := m.register()
	path := "/api/v1/nodes/" + ack.NodeID + "/upgrade"
	ask := func(token, key, path, body string) (int, string, string) {
		resp := m.do(token, "POST", path, body, http.Header{"Idempotency-Key": {key}})
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		m.described("POST", path, resp, b)
		return resp.StatusCode, string(b), resp.Header.Get("Idempotency-Replayed")
	}
	status, first, replayed := ask(admin, "k", path, `{"version":"1.1.0"}`)
	if status != 202 || replayed != "" {
		t.Fatal(status, first)
	}
	if status, again, replayed := ask(admin, "k", path, `{"version":"1.1.0"}`); status != 202 || again != first || replayed != "true" {
		t.Errorf("again: %d %s", status, again)
	}
	if status, text, _ := ask(admin, "k", path, `{"version":"1.2.0"}`); status != 422 || !strings.Contains(text, "key_reused") {
		t.Errorf("another body: %d %s", status, text)
	}
	if status, text, _ := ask(admin, strings.Repeat("k", 256), path, `{"version":"1.2.0"}`); status != 400 {
		t.Errorf("a long key: %d %s", status, text)
	}
	// What was refused was not carried out: the key is free.
	if status, _, _ := ask(admin, "k2", "/api/v1/groups", `{"name":""}`); status != 400 {
		t.Errorf("a bad name: %d", status)
	}
	if status, _, _ := ask(admin, "k2", "/api/v1/groups", `{"name":"site"}`); status != 201 {
		t.Errorf("then a good one: %d", status)
	}
	// The token is shown once and not stored.
	if status, _, _ := ask(admin, "k3", "/api/v1/tokens", `{"name":"ci","role":"viewer"}`); status != 201 {
		t.Errorf("a token: %d", status)
	}
	if status, text, _ := ask(admin, "k3", "/api/v1/tokens", `{"name":"ci","role":"viewer"}`); status != 409 || strings.Contains(text, `"token"`) {
		t.Errorf("a token again: %d %s", status, text)
	}
	n.refuse()
	// Many at once: one is carried out.
	const many = 20
	ids := make(chan string, many)
	for range many {
		go func() {
			resp := m.do(admin, "POST", path, `{"version":"1.3.0"}`, http.Header{"Idempotency-Key": {"race"}})
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			if resp.StatusCode == 202 {
				ids <- string(b)
			} else {
				ids <- ""
			}
		}()
	}
	answers := map[string]bool{}
	for range many {
		if id := <-ids; id != "" {
			answers[id] = true
		}
	}
	var list struct{ Commands []any }
	m.into(200, "GET", "/api/v1/nodes/"+ack.NodeID+"/commands", "", &list)
	if len(list.Commands) != 2 || len(answers) != 1 {
		t.Errorf("%d commands, %d answers", len(list.Commands), len(answers))
	}
}

// A stream that is resumed begins with the missed events, in order, each once.
func TestStreamReplaysWhatWasMissed(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, _ := m.register()
	add := func(from, to int) {
		for i := from; i < to; i++ {
			n.send(event(fmt.Sprint("e", i)))
			n.next()
		}
	}
	// read returns the ids of k events of a new stream, and what went before them.
	read := func(last string, k int) (ids []string, other string) {
		t.Helper()
		h := http.Header{}
		if last != "" {
			h.Set("Last-Event-ID", last)
		}
		resp := m.do(admin, "GET", "/api/v1/events/stream", "", h)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for first := true; len(ids) < k && lines.Scan(); first = false {
			if first {
				add(1000+len(last)*1000, 1001+len(last)*1000) // one that is live
			}
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				ids = append(ids, id)
			} else if strings.Contains(lines.Text(), `"gap"`) {
				other = "gap"
			}
		}
		return ids, other
	}
	add(0, 5)
	ids, _ := read("", 1)
	if len(ids) != 1 || ids[0] != "7" { // after that of register, and five
		t.Fatalf("a new stream: %v", ids)
	}
	if ids, gap := read("3", 5); strings.Join(ids, " ") != "4 5 6 7 8" || gap != "" {
		t.Errorf("since 3: %v %s", ids, gap)
	}
	add(5, 210)
	if ids, gap := read("03", 201); gap != "gap" || len(ids) != 201 || ids[200] != "214" {
		t.Errorf("since long ago: %d events to %s, %q", len(ids), ids[len(ids)-1], gap)
	}
	resp := m.do(admin, "GET", "/api/v1/events/stream", "", http.Header{"Last-Event-ID": {"x"}})
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an id that is none: %d", resp.StatusCode)
	}
}

func TestReadyMetricsAndAnOrderlyEnd(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, _ := m.register()
	status := func(path string) int {
		resp := m.do("", "GET", path, "", nil)
		resp.Body.Close()
		return resp.StatusCode
	}
	if status("/healthz") != 200 || status("/readyz") != 200 || status("/metrics") != http.StatusUnauthorized {
		t.Error("healthz, readyz or metrics")
	}
	_, text := m.call("GET", "/metrics", "")
	for _, want := range []string{"manager_nodes_online 1", `manager_events_total{severity="info"} 1`, "manager_http_request_duration_seconds_count"} {
		if want == "manager_http_request_duration_seconds_count" {
			_, text = m.call("GET", "/metrics", "") // the first one is counted by now
		}
		if !strings.Contains(text, want) {
			t.Errorf("the metrics have no %s:\n%s", want, text)
		}
	}
	m.Close()
	n.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		_, b, err := n.conn.ReadMessage()
		if err == nil {
			if _, err := wire.Decode(b); err == nil {
				continue
			}
		}
		if !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
			t.Errorf("a node gets %v", err)
		}
		break
	}
	if status("/readyz") != http.StatusServiceUnavailable || status("/healthz") != 200 {
		t.Error("a manager that is stopping is ready")
	}
}
