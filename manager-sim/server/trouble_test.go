package server_test

import (
	"database/sql"
	"fmt"
	"github.com/bilbycast/edge-agent/internal/box"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// blockable is a manager whose database another program can lock.
type blockable struct {
	*manager
	db *sql.DB // of the other program
}

func startBlockable(t *testing.T) *blockable {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	st, err := store.Open(t.Context(), path)
	if err == nil {
		err = st.AddToken(t.Context(), secret.Hash(registration))
	}
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{Store: st, t: t}
	m.run(server.Config{})
	m.openAPI = sync.OnceValues(m.readOpenAPI)
	t.Cleanup(func() { m.Close(); m.http.Close(); st.Close() })
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(20000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &blockable{m, db}
}

// lock locks the database, and returns when the manager knows.
func (b *blockable) lock() (unlock func()) {
	b.t.Helper()
	tx, err := b.db.BeginTx(b.t.Context(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.Store.AddAudit(b.t.Context(), store.NewAuditEntry(time.Now(), "ann", "x", "x", nil)); store.Trouble(err) != "locked" {
		b.t.Fatal(err)
	}
	return func() { tx.Rollback() }
}

// get returns the status, the code and the header Retry-After of an answer.
func (b *blockable) get(path string) (int, string, string) {
	b.t.Helper()
	resp := b.do(admin, "GET", path, "", nil)
	defer resp.Body.Close()
	var body strings.Builder
	if err := resp.Write(&body); err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, body.String(), resp.Header.Get("Retry-After")
}

// While the database is locked, sessions stay, and what their nodes report is stored and
// acknowledged afterwards. New connections, also of probes, get 503 before the upgrade of the
// connection. /readyz says why.
func TestSessionsStayWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	box.Slow(t)
	b := startBlockable(t)
	n, reg := b.register()
	n.health("1.0.0")
	n.synced("before")
	if code, text, _ := b.get("/readyz"); code != http.StatusOK {
		t.Errorf("ready: %d %s", code, text)
	}
	unlock := b.lock()
	for i := range 20 { // more than one message, and health beats between them
		n.send(event("away-" + string(rune('a'+i))))
		n.health("1.0.0")
	}
	conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(b.http.URL, "http")+wire.Path, nil)
	if err == nil {
		conn.Close()
		t.Fatal("a connection is upgraded while the store is away")
	}
	if resp == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new connection gets %v, %v", resp, err)
	}
	if code, text, retry := b.get("/readyz"); code != http.StatusServiceUnavailable || retry == "" || !strings.Contains(text, "locked") {
		t.Errorf("not ready: %d %q %s", code, retry, text)
	}
	if code, _, _ := b.get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	body := `{"name":"g"}`
	answer := b.do(admin, "POST", "/api/v1/groups", body, nil)
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Errorf("a change: %d", answer.StatusCode)
	}
	ponged := make(chan struct{})
	n.conn.SetPongHandler(func(data string) error {
		if data == "asked" {
			close(ponged)
		}
		return nil
	})
	acks := make(chan string, 100)
	go func() {
		defer close(acks)
		for {
			_, text, err := n.conn.ReadMessage()
			if err != nil {
				return
			}
			env, err := wire.Decode(text)
			if a, ok := env.Message.(*wire.EventAck); err == nil && ok {
				for _, id := range a.EventIDs {
					acks <- id
				}
			}
		}
	}()
	if err := n.conn.WriteControl(websocket.PingMessage, []byte("asked"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	<-ponged
	if len(acks) > 0 {
		t.Error("an event is acknowledged while the store is away")
	}
	unlock()
	acked := map[string]bool{}
	for len(acked) < 20 {
		id, ok := <-acks
		if !ok {
			t.Fatalf("the session ended, with %d events acknowledged", len(acked))
		}
		acked[id] = true
	}
	b.until("readiness", func() bool { code, _, _ := b.get("/readyz"); return code == http.StatusOK })
	cs, err := b.Store.Connections(t.Context(), reg.NodeID)
	if err != nil || len(cs) != 1 || cs[0].State != api.Authenticated {
		t.Errorf("connections %+v, %v", cs, err)
	}
	b.again(reg, "1.0.0")
}

// The end of a session while the database is locked is recorded once the node is back: its
// absence counts.
func TestTheEndOfASessionWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	box.Slow(t)
	b := startBlockable(t)
	n, reg := b.register()
	unlock := b.lock()
	n.conn.Close()
	b.nodeIs(reg.NodeID, false)
	unlock()
	<-b.Store.Back()
	b.again(reg, "1.0.0").synced("back")
	cs, err := b.Store.Connections(t.Context(), reg.NodeID)
	if err != nil || len(cs) != 3 || cs[0].State != api.Authenticated || cs[1].State != api.Disconnected || cs[1].Time.After(cs[0].Time) {
		t.Errorf("connections %+v, %v", cs, err)
	}
}

// A node that authenticates when the database turns out to be locked is told to come back
// later, with 1013: its secret is not called wrong. A defect of the manager closes with 1011.
func TestTroubleDuringAuthentication(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		break_ func(b *blockable) (repair func())
		code   int
	}{
		"locked": {func(b *blockable) func() {
			tx, err := b.db.BeginTx(b.t.Context(), nil)
			if err != nil {
				b.t.Fatal(err)
			}
			return func() { tx.Rollback() }
		}, websocket.CloseTryAgainLater},
		"a defect": {func(b *blockable) func() {
			if _, err := b.db.ExecContext(b.t.Context(), "CREATE TRIGGER defect BEFORE INSERT ON connections BEGIN SELECT RAISE(ABORT, 'defect'); END"); err != nil {
				b.t.Fatal(err)
			}
			return func() {}
		}, websocket.CloseInternalServerErr},
	} {
		for _, probe := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, probe %t", name, probe), func(t *testing.T) {
				t.Parallel()
				b := startBlockable(t)
				n, reg := b.register()
				n.conn.Close()
				b.until("the end of the session", func() bool {
					cs, err := b.Store.Connections(t.Context(), reg.NodeID)
					return err == nil && len(cs) == 2
				})
				c := b.dial()
				defer tt.break_(b)()
				auth := &wire.Auth{NodeID: reg.NodeID, NodeSecret: reg.NodeSecret, SoftwareVersion: "1.1.0", DeviceType: "edge", ProtocolVersion: wire.ProtocolVersion, Probe: probe}
				c.send(auth)
				for {
					_, m, err := c.conn.ReadMessage()
					if err == nil {
						t.Errorf("it gets %s", m)
						continue
					}
					if !websocket.IsCloseError(err, tt.code) {
						t.Errorf("%v, want the code %d", err, tt.code)
					}
					return
				}
			})
		}
	}
}
