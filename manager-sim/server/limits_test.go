package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// at sends an event with that time stamp.
func (n *node) at(stamp string, e *wire.Event) {
	n.t.Helper()
	p, err := json.Marshal(e)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"event","timestamp":%q,"payload":%s}`, stamp, p)); err != nil {
		n.t.Fatal(err)
	}
}

// No time that a node sends, and none that an earlier version stored, empties a list or
// ends a stream.
func TestTimesThatNoDeviceHas(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	for i, stamp := range []string{"9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", "nonsense"} {
		n.at(stamp, event(fmt.Sprint("time-", i)))
	}
	n.synced("after-times")
	stored := store.Event{EventID: "stored", NodeID: reg.NodeID, Time: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), ReceivedAt: time.Now(), Severity: "info", Category: "x", Details: []byte("{}")}
	if _, err := m.Store.AddEvent(t.Context(), &stored); err != nil {
		t.Fatal(err)
	}
	var list struct{ Events []struct{ Event_ID string } }
	m.into(http.StatusOK, "GET", "/api/v1/events?node_id="+reg.NodeID, "", &list)
	if len(list.Events) != 7 { // hello, four, after-times, stored
		t.Errorf("%d events are listed", len(list.Events))
	}
	resp := m.do(admin, "GET", "/api/v1/events/stream", "", http.Header{"Last-Event-ID": {"1"}})
	defer resp.Body.Close()
	seen, b := "", make([]byte, 4096)
	for !strings.Contains(seen, `"stored"`) {
		k, err := resp.Body.Read(b)
		if err != nil {
			t.Fatalf("the stream ends with %v after %s", err, seen)
		}
		seen += string(b[:k])
	}
}

// Severities are few, whatever nodes make up.
func TestSeveritiesAreFew(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	for i := range 50 {
		n.send(&wire.Event{EventID: fmt.Sprint("s", i), Severity: release.Severity(fmt.Sprintf("%0120d", i)), Category: "x", Message: "x"})
	}
	n.synced("after-severities")
	_, text := m.call("GET", "/api/v1/events?per_page=200&severity=warning&node_id="+reg.NodeID, "")
	if strings.Count(text, `"severity":"warning"`) != 50 {
		t.Errorf("listed: %.500s", text)
	}
	resp := m.do(admin, "GET", "/metrics", "", nil)
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		t.Fatal(err)
	}
	if k := strings.Count(b.String(), "manager_events_total{"); k > len(release.Severities()) {
		t.Errorf("%d series of events", k)
	}
}

// A list of nodes stays small, whatever the nodes say of themselves, and costs no more
// when a node has reported very much.
func TestAListOfNodesStaysSmall(t *testing.T) {
	t.Parallel()
	m := start(t)
	var caps []string
	for range 90 {
		caps = append(caps, strings.Repeat("c", 10_000))
	}
	const nodes = 20
	var n *node
	var reg *wire.RegisterAck
	for range nodes {
		n, reg = m.register()
		n.send(&wire.Health{Status: "ok", Version: "1.0.0", Capabilities: append([]string{wire.CapabilityUpgrade}, caps...),
			Upgrade: &wire.Upgrade{Channels: caps[:5], Status: strings.Repeat("s", 10_000)}})
		n.synced("after-health")
	}
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	id := n.command().CommandID
	var journal []string
	for range wire.MaxJournal {
		journal = append(journal, strings.Repeat("j", wire.MaxText))
	}
	for i := range 12 { // more would be read at a lower rate
		n.send(&wire.Event{EventID: fmt.Sprint("big-", i), Severity: "info", Category: "upgrade", Message: "x", Details: wire.Details{CommandID: id, Journal: journal[:wire.MaxJournal-2]}})
		n.synced(fmt.Sprint("after-big-", i))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	code, text := m.call("GET", "/api/v1/nodes", "")
	runtime.ReadMemStats(&after)
	if code != http.StatusOK || len(text) > nodes*10<<10 {
		t.Errorf("%d, %d bytes", code, len(text))
	}
	// The test's own parsing is in it.
	if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 20 {
		t.Errorf("the list allocates %d MB", mb)
	}
}

// One node's events have a bound; its oldest are deleted, and nobody else's.
func TestANodesShareOfTheStore(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, other := m.register()
	_, reg := m.register()
	details := []byte(`{"journal":["` + strings.Repeat("j", 1<<20) + `"]}`)
	for i := range 40 {
		e := store.Event{EventID: fmt.Sprint("e", i), NodeID: reg.NodeID, ReceivedAt: time.Now(), Severity: "info", Category: "x", Message: "m", Details: details}
		if added, err := m.Store.AddEvent(t.Context(), &e); err != nil || !added {
			t.Fatal(added, err)
		}
	}
	events, total, err := m.Store.Events(t.Context(), store.EventFilter{NodeID: reg.NodeID, Page: 1, PerPage: 200})
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, e := range events {
		size += len(e.Message) + len(e.Details)
	}
	if size > store.EventBytesKept || size < store.EventBytesKept/2 || events[0].EventID != "e39" {
		t.Errorf("%d events of %d bytes are left; the newest is %s", total, size, events[0].EventID)
	}
	if _, total, err := m.Store.Events(t.Context(), store.EventFilter{NodeID: other.NodeID, Page: 1, PerPage: 1}); err != nil || total != 1 {
		t.Errorf("of the other node: %d, %v", total, err)
	}
}
