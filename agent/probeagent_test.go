//go:build !sim

package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
	"github.com/rs/zerolog"
)

// realManager is manager-sim behind TLS, which accepts the token of rootWith.
func realManager(t *testing.T) (m *secureManager, call func(path string) string) {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.AddToken(t.Context(), secret.Hash("token")); err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Config{Store: st, AdminToken: "admin", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); st.Close() })
	m = behindTLS(t, s)
	return m, func(path string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", m.URL+"/api/v1/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer admin")
		resp, err := m.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %s %s, %v", path, resp.Status, b, err)
		}
		return string(b)
	}
}

// A probe of the real manager works beside a running agent: it changes neither the agent's
// session nor the node's record. The agent has recorded what the probe
// needs.
func TestProbeBesideARunningAgent(t *testing.T) {
	t.Parallel()
	m, call := realManager(t)
	c := rootWith(t, m.url)
	c.Manager.CAFile = m.ca
	a := runAgent(t, c)
	l := layoutOf(t, c)
	var nodes struct {
		Nodes []struct {
			ID, Version, Health string
			Online              bool
		}
	}
	wait(t, "the node is online and has reported its health", func() bool {
		err := json.Unmarshal([]byte(call("nodes")), &nodes)
		return err == nil && len(nodes.Nodes) == 1 && nodes.Nodes[0].Online && nodes.Nodes[0].Health != ""
	})
	wait(t, "the agent has recorded its manager", func() bool {
		got, err := l.ReadManager()
		return err == nil && got == state.Manager{Key: m.key, Probe: true}
	})
	if got := lastManager(a); got != (state.Manager{Key: m.key, Probe: true}) {
		t.Errorf("the agent knows %+v", got)
	}
	records := func() string {
		id := nodes.Nodes[0].ID
		if err := json.Unmarshal([]byte(call("nodes")), &nodes); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(nodes) + call("nodes/"+id+"/connections") + call("events") + call("audit-log")
	}
	before := records()
	r, err := Probe(t.Context(), c.Config, ProbeOptions{Version: "9.9.9", Keys: []string{lastManager(a).Key}, hold: 200 * time.Millisecond})
	if err != nil || !r.Held() {
		t.Errorf("%v, %v", err, r.Err())
	}
	if after := records(); after != before {
		t.Errorf("the records changed:\n%s\n%s", before, after)
	}
}

// What an agent learned of its manager is written when it is new, and not at each session.
// A damaged file is replaced, and one that cannot be written costs nothing else.
func TestLastManagerIsWrittenWhenItIsNew(t *testing.T) {
	t.Parallel()
	a, err := newOf(rootWith(t, "ws://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	l := a.c.Layout
	var changes atomic.Int64
	a.c.Layout = l.On(fsutil.Disk{Seam: counting{&changes}})
	for i, tt := range []struct {
		before string // written to the file
		m      state.Manager
		writes bool
	}{
		{m: state.Manager{}, writes: false},
		{m: state.Manager{Key: "a", Probe: true}, writes: true},
		{m: state.Manager{Key: "a", Probe: true}, writes: false},
		{m: state.Manager{Key: "a"}, writes: true},
		{before: "{", m: state.Manager{Key: "a"}, writes: true},
		{m: state.Manager{}, writes: true},
	} {
		if tt.before != "" {
			if err := os.WriteFile(l.ManagerFile(), []byte(tt.before), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := l.ReadManager(); err == nil || got != (state.Manager{}) {
				t.Errorf("a damaged file: %+v, %v", got, err)
			}
		}
		n := changes.Load()
		a.recordManager(t.Context(), tt.m)
		if wrote := changes.Load() > n; wrote != tt.writes {
			t.Errorf("%d: written %v", i, wrote)
		}
		if got, err := l.ReadManager(); err != nil || got != tt.m || lastManager(a) != tt.m {
			t.Errorf("%d: %+v, %v", i, got, err)
		}
	}
	if st, err := os.Stat(l.ManagerFile()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	// Another process reads it.
	if b, err := newOf(rootAt(t, t.TempDir(), "ws://127.0.0.1:1")); err != nil || lastManager(b) != (state.Manager{}) {
		t.Errorf("a node without a session: %v", err)
	}
}

// A manager that announces probes at the end only, or at the beginning only, counts as
// one that does not know them.
func TestWhatASessionShowsOfTheManager(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		header   http.Header
		features []string
		want     bool
	}{
		"both":    {announced, []string{wire.FeatureEventAck, wire.FeatureProbe}, true},
		"header":  {announced, acks, false},
		"auth_ok": {nil, []string{wire.FeatureProbe}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := answeringSessions(t, tt.header, tt.features)
			c := registeredNode(t, m)
			a := runAgent(t, c)
			wait(t, "a session", func() bool { return lastManager(a).Key == m.key })
			if got := lastManager(a); got.Probe != tt.want {
				t.Errorf("%+v", got)
			}
		})
	}
}

func answeringSessions(t *testing.T, header http.Header, features []string) *secureManager {
	t.Helper()
	var up websocket.Upgrader
	return behindTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, header)
		if err != nil {
			return
		}
		defer conn.Close()
		if _, _, err := conn.ReadMessage(); err != nil {
			return
		}
		p := peer{t, conn, nil}
		p.send(&wire.AuthOK{Features: features})
		p.drain()
	}))
}

// ProbeCommand takes what an agent on trial passes to it, and writes a line for each step.
func TestProbeCommand(t *testing.T) {
	t.Parallel()
	m := answering(t, announced, acceptProbe)
	c := rootWith(t, m.url)
	c = opened(t, c, fileOf(c, m.url)+"\n[health]\n")
	path, l := layoutOf(t, c).ConfigFile(), layoutOf(t, c)
	var out strings.Builder
	args := []string{"--config", path, "--json", "--credentials", l.CredentialsFile(), "--manager-key", strings.Repeat("0", 64), "--manager-key=" + strings.Repeat("1", 64)}
	if err := ProbeCommand(t.Context(), "1.0.0", nil, args, &out); err == nil || !strings.Contains(err.Error(), "set manager.ca_file") {
		t.Error(err)
	}
	var last ProbeStep
	for line := range strings.Lines(out.String()) {
		last = ProbeStep{}
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	if last.Stage != StageTLS || last.OK || last.Key != m.key {
		t.Errorf("%+v", last)
	}
	for want, args := range map[string][]string{
		"use: probe --config FILE": nil,
		"use: probe --config":      {"--config", path, "more"},
		"not defined: -later":      {"--config", path, "--later"},
		`"abc" is not a SHA-256`:   {"--config", path, "--manager-key", "abc"},
		"no such file":             {"--config", path + "x"},
		"invalid boolean value":    {"--json=maybe"},
		"flag needs an argument":   {"--config"},
	} {
		if err := ProbeCommand(t.Context(), "1.0.0", nil, args, &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if testing.Short() {
		return // a connection is held for 10 s
	}
	opened(t, c, strings.Replace(fileOf(c, m.url), "allow_insecure = true", fmt.Sprintf("ca_file = %q", m.ca), 1))
	began := time.Now()
	if err := ProbeCommand(t.Context(), "1.0.0", nil, []string{"--config", path, "--manager-key", m.key}, &out); err != nil || time.Since(began) < 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// lastManager returns what the node of a learned in its last session.
func lastManager(a *Agent) state.Manager {
	m, _ := a.c.Layout.ReadManager()
	return m
}
