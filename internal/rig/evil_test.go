package rig_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// A malicious manager can only schedule genuine releases. No message of it changes what
// decides which version runs, and the agent keeps running.
func TestAnEvilManager(t *testing.T) {
	t.Parallel()
	bin := builds(t)
	r := newRig(t)
	for v, fault := range map[string]fakerelease.Fault{"1.0.0": "", "1.1.0": "", "1.3.0": fakerelease.WrongIdentity, "1.4.0": fakerelease.BadSignature, "1.5.0": fakerelease.NoLogEntry, "1.6.0": fakerelease.BadChecksum} {
		program := bin[v]
		if program == "" {
			program = bin["1.2.0"]
		}
		if _, err := r.Publish(fakerelease.Options{Version: v, Binary: program, Fault: fault}); err != nil {
			t.Fatal(err)
		}
	}
	sessions := make(chan *websocket.Conn, 10)
	url, err := r.Serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		up := websocket.Upgrader{}
		conn, err := up.Upgrade(w, req, nil)
		if err != nil {
			return
		}
		_, b, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if env, err := wire.Decode(b); err == nil && env.Message.(*wire.Auth).NodeID != "" {
			b, _ = wire.Encode(&wire.AuthOK{Features: []string{wire.FeatureEventAck}}, time.Now())
		} else {
			b, _ = wire.Encode(&wire.RegisterAck{NodeID: "6b0f3d1e-0000-4000-8000-000000000001", NodeSecret: "secret", Features: []string{wire.FeatureEventAck}}, time.Now())
		}
		if len(sessions) > 0 || conn.WriteMessage(websocket.TextMessage, b) != nil {
			return
		}
		sessions <- conn
	}))
	if err != nil {
		t.Fatal(err)
	}
	n, err := r.Install(t.Context(), rig.NodeConfig{Version: "1.0.0", Binary: bin["1.0.0"], ManagerURL: "wss" + strings.TrimPrefix(url, "https"), MaxBootAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	n.Start()
	t.Cleanup(n.Stop)
	limit := patience(t)
	next := func() *websocket.Conn {
		t.Helper()
		select {
		case c := <-sessions:
			end, _ := limit.Deadline()
			c.SetReadDeadline(end)
			return c
		case <-limit.Done():
			t.Fatal("the node does not come")
			return nil
		}
	}
	conn := next()
	send := func(kind int, b []byte) {
		t.Helper()
		if err := conn.WriteMessage(kind, b); err != nil {
			t.Fatalf("%.100q: %v", b, err)
		}
	}
	// until reads messages until one is it; it acknowledges every event, so
	// that none stays in the outbox.
	until := func(what string, it func(wire.Message) bool) wire.Message {
		t.Helper()
		for {
			_, b, err := conn.ReadMessage()
			if err != nil {
				t.Fatalf("waiting for %s: %v", what, err)
			}
			env, err := wire.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := env.Message.(*wire.Event); ok {
				b, _ := wire.Encode(&wire.EventAck{EventIDs: []string{e.EventID}}, time.Now())
				send(websocket.TextMessage, b)
			}
			if it(env.Message) {
				return env.Message
			}
		}
	}
	ack := func(id string) *wire.CommandAck {
		t.Helper()
		return until("the ack of "+id, func(m wire.Message) bool {
			a, ok := m.(*wire.CommandAck)
			return ok && a.CommandID == id
		}).(*wire.CommandAck)
	}
	command := func(id string, action map[string]any) {
		t.Helper()
		b, err := json.Marshal(map[string]any{"type": "command", "timestamp": "2026-11-25T00:00:00Z", "payload": map[string]any{"command_id": id, "action": action}})
		if err != nil {
			t.Fatal(err)
		}
		send(websocket.TextMessage, b)
	}
	if _, _, err := conn.ReadMessage(); err != nil { // its first health beat: it has kept its credentials
		t.Fatal(err)
	}
	copied(limit, t, n.Root)
	before := whatRuns(t, n.Root)

	// Frames that are no messages.
	for _, b := range [][]byte{nil, []byte("hello"), []byte("{}"), []byte("[]"), []byte(`{"type":"command"}`), []byte(`{"type":"command","payload":null}`),
		[]byte(strings.Repeat("[", 50_000)), []byte(`{"type":"shell","payload":{"cmd":"id"}}`), []byte("\x00\xff\xfe"), []byte(`{"type":"register_ack","payload":{"node_id":"x","node_secret":"y"}}`)} {
		send(websocket.TextMessage, b)
	}
	send(websocket.BinaryMessage, []byte(`{"type":"command","payload":{"command_id":"bin","action":{"type":"upgrade_binary","version":"1.1.0"}}}`))
	// Commands that ask for something else, or for somewhere else.
	const missing = "6.6.6"
	evil := []map[string]any{
		{"type": "exec", "command": "id"}, {"type": "shell"}, {"type": "set_config", "upgrade": map[string]any{"enabled": true}}, {"type": "add_signer", "repository": "https://github.com/mallory/edge"},
		{"type": "upgrade_binary", "version": "../../../etc"}, {"type": "upgrade_binary", "version": "1.1.0/../../x"}, {"type": "upgrade_binary", "version": "1.1.0\x00"},
		{"type": "upgrade_binary", "version": ""}, {"type": "upgrade_binary", "version": strings.Repeat("9", 5000)}, {"type": "upgrade_binary", "version": "latest"},
		{"type": "upgrade_binary", "version": "1.1.0", "channel": "../stable"}, {"type": "upgrade_binary", "version": "1.1.0", "channel": "nightly"},
		{"type": "upgrade_binary", "version": "1.1.0", "target_arch": "../../x"}, {"type": "upgrade_binary", "version": "1.1.0", "target_arch": "mips-linux"}, {"type": "upgrade_binary", "version": "1.1.0", "variant": "; id"},
		{"type": "upgrade_binary", "version": "0.0.1"}, {"type": "upgrade_binary", "version": missing},
		{"type": "upgrade_binary", "version": "1.3.0"}, {"type": "upgrade_binary", "version": "1.4.0"}, {"type": "upgrade_binary", "version": "1.5.0"}, {"type": "upgrade_binary", "version": "1.6.0"},
		// Fields beside the version are ignored.
		{"type": "upgrade_binary", "version": "1.4.0", "url": "https://evil.example/x.tar.gz", "sha256": strings.Repeat("0", 64), "insecure": true, "signers": []any{}, "skip_verify": true},
	}
	for i, action := range evil {
		id := fmt.Sprint("evil", i)
		command(id, action)
		if action["version"] == missing { // the node asks the host for it for a while
			until("the start of "+id, func(m wire.Message) bool {
				e, ok := m.(*wire.Event)
				return ok && e.Details.CommandID == id
			})
			command(id+"-withdrawal", map[string]any{"type": "upgrade_withdraw", "command_id": id})
		}
		if a := ack(id); a.Success {
			t.Errorf("%v succeeded", action)
		}
		if tree, err := n.Tree(); err != nil || tree.Current.String() != "1.0.0" {
			t.Fatalf("after %v the node runs %s (%v)", action, tree.Current, err)
		}
	}
	if diff := differ(before, whatRuns(t, n.Root)); diff != "" {
		t.Errorf("the tree has changed:\n%s", diff)
	}
	// And the genuine one.
	command("good", map[string]any{"type": "upgrade_binary", "version": "1.1.0", "channel": "stable"})
	if a := ack("good"); !a.Success {
		t.Errorf("a genuine release: %s %s", a.ErrorCode, a.Error)
	}
	conn = next()
	until("upgrade_completed", func(m wire.Message) bool {
		e, ok := m.(*wire.Event)
		return ok && e.Details.ErrorCode == release.Completed
	})
	if tree, err := n.Tree(); err != nil || tree.LastGood.String() != "1.1.0" {
		t.Errorf("last-good points to %s (%v)", tree.LastGood, err)
	}
}

// whatRuns returns what decides which version runs: versions, links, configuration, modes.
func whatRuns(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if tries(rel) {
			return nil
		}
		if err != nil {
			return err
		}
		top, _, _ := strings.Cut(rel, "/")
		switch top {
		case "state.json", "outbox", "downloads", "state.lock": // what it remembers of the commands
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out[rel] = fmt.Sprint(info.Mode(), " ", info.Size())
		if d.IsDir() {
			out[rel] = info.Mode().String()
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			out[rel] += " " + to
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func differ(a, b map[string]string) string {
	var lines []string
	for k, v := range a {
		if b[k] != v {
			lines = append(lines, fmt.Sprintf("%s was %s, is %s", k, v, b[k]))
		}
	}
	for k, v := range b {
		if _, ok := a[k]; !ok {
			lines = append(lines, fmt.Sprintf("%s is new: %s", k, v))
		}
	}
	return strings.Join(lines, "\n")
}

// tries reports whether a path is one by which the agent tries at its start, and now and then,
// what the root can do. Those come and go at any moment.
func tries(rel string) bool { return strings.Contains(rel, "-ability") }
