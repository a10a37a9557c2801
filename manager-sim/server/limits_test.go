package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
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

// No time that a node sends, or that an earlier version stored, empties a list or ends
// a stream.
func TestTimesThatNoDeviceHas(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	for i, stamp := range []string{"9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", "nonsense"} {
		n.at(stamp, event(fmt.Sprint("time-", i)))
	}
	n.synced("after-times")
	stored := api.Event{EventID: "stored", NodeID: reg.NodeID, Time: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), ReceivedAt: time.Now(), Severity: "info", Category: "x", Details: []byte("{}")}
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

// The severities are a fixed list, whatever nodes send.
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

// A list of nodes stays small, whatever the nodes report, and is not slower when a node
// has reported very many events.
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
	least := uint64(math.MaxUint64) // other tests allocate as well, so the smallest of some counts
	for range 10 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		code, text := m.call("GET", "/api/v1/nodes", "")
		runtime.ReadMemStats(&after)
		if code != http.StatusOK || len(text) > nodes*10<<10 {
			t.Fatalf("%d, %d bytes", code, len(text))
		}
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	// The test's own parsing is in it.
	if mb := least >> 20; mb > 20 {
		t.Errorf("the list allocates %d MB", mb)
	}
}

// One node's events are bounded: its oldest ones are deleted, and no other node's.
func TestANodesShareOfTheStore(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, other := m.register()
	_, reg := m.register()
	details := []byte(`{"journal":["` + strings.Repeat("j", 1<<20) + `"]}`)
	for i := range 40 {
		e := api.Event{EventID: fmt.Sprint("e", i), NodeID: reg.NodeID, ReceivedAt: time.Now(), Severity: "info", Category: "x", Message: "m", Details: details}
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

// Bounds of texts bound the answers, whatever characters the texts have.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	angle := strings.Repeat("<", 10_000)
	var caps, journal []string
	for range 90 {
		caps = append(caps, angle[:1000])
	}
	for range wire.MaxJournal {
		journal = append(journal, angle[:wire.MaxText-1])
	}
	n.send(&wire.Health{Status: "ok", Version: "1.0.0", Capabilities: caps, UpgradeUnavailable: angle[:wire.MaxText-1], Warnings: caps[:60], Upgrade: &wire.Upgrade{Channels: caps[:5]}})
	n.synced("after-health")
	if _, text := m.call("GET", "/api/v1/nodes", ""); len(text) > 12<<10 {
		t.Errorf("a list of one node has %d bytes", len(text))
	}
	details, err := json.Marshal(wire.Details{ErrorCode: "upgrade_rolled_back", FromVersion: "1.1.0", Journal: journal[:8]})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 150 {
		e := api.Event{EventID: fmt.Sprint("e", i), NodeID: reg.NodeID, ReceivedAt: time.Now(), Severity: "info", Category: "x", Message: angle[:8000], Details: details}
		if _, err := m.Store.AddEvent(t.Context(), &e); err != nil {
			t.Fatal(err)
		}
	}
	var list struct {
		Events []struct {
			Details struct {
				Journal   []string
				From      string `json:"from_version"`
				Shortened bool
			}
		}
	}
	_, text := m.call("GET", "/api/v1/events?per_page=200", "")
	if len(text) > 8<<20 {
		t.Errorf("a list of events has %d bytes", len(text))
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	first, last := list.Events[0], list.Events[len(list.Events)-10]
	if len(first.Details.Journal) == 0 || !last.Details.Shortened || last.Details.From != "1.1.0" {
		t.Errorf("the first event has %d lines; the last is shortened: %t, from %q", len(first.Details.Journal), last.Details.Shortened, last.Details.From)
	}
}

// A stream refuses a body that never ends: it would delay the stream beyond its right.
func TestAStreamTakesNoBody(t *testing.T) {
	t.Parallel()
	m := start(t)
	r, w := io.Pipe()
	defer w.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.http.URL+"/api/v1/events/stream", r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("answered %d", resp.StatusCode)
	}
}

// Strangers, however many, cannot lock a user out by name.
func TestManySourcesLockNobodyOut(t *testing.T) {
	t.Parallel()
	m := start(t)
	m.into(http.StatusCreated, "POST", "/api/v1/users", `{"name":"alice","password":"correct horse 42","role":"viewer","groups":["*"]}`, nil)
	for i := range 70 {
		if _, err := m.Users.SignIn(t.Context(), fmt.Sprintf("192.0.2.%d", i), "alice", "a wrong password"); !errors.Is(err, identity.ErrWrong) {
			t.Fatal(err)
		}
	}
	if _, err := m.Users.SignIn(t.Context(), "198.51.100.1", "alice", "correct horse 42"); err != nil {
		t.Errorf("alice: %v", err)
	}
}

// The hash of a password takes no memory that argon2 cannot use, and no more than by default.
func TestPasswordMemory(t *testing.T) {
	t.Parallel()
	m := start(t)
	for _, memory := range []uint32{1, 31, 65537, 1 << 31} {
		if s, err := server.New(server.Config{Store: m.Store, AdminToken: admin, PasswordMemory: memory}); err == nil {
			s.Close()
			t.Errorf("%d KiB are accepted", memory)
		}
	}
	// What is stored says what it takes: a user stays when the setting changes.
	m.into(http.StatusCreated, "POST", "/api/v1/users", `{"name":"alice","password":"correct horse 42","role":"viewer","groups":["*"]}`, nil)
	m.Close()
	m.http.Close()
	m.run(server.Config{PasswordMemory: 64})
	if _, err := m.Users.SignIn(t.Context(), "192.0.2.1", "alice", "correct horse 42"); err != nil {
		t.Error(err)
	}
}
