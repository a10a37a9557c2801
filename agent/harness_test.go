//go:build !sim

package agent

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/watchdog"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// rootWith lays out a root that runs 1.0.0, for a node whose manager is at url.
func rootWith(t *testing.T, url string) node {
	t.Helper()
	return rootAt(t, t.TempDir(), url)
}

// rootAt is rootWith for the directory root.
func rootAt(t *testing.T, root, url string) node {
	t.Helper()
	c := bareNode(t)
	c.Version = "1.0.0"
	c.Service.InstallRoot = root
	c.Service.Binary = "edge"
	c.Upgrade.Enabled = true
	zero := 0
	c.Upgrade.DrainSecs = &zero
	c.Manager = config.Manager{URLs: []string{url}, AllowInsecure: true, RegistrationToken: config.NewSecret("token"), Proxy: config.NewSecret("none")}
	dir := filepath.Join(c.Service.InstallRoot, "versions", "1.0.0")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, c.Service.Binary), []byte("program"), 0o755), os.Symlink("versions/1.0.0", filepath.Join(c.Service.InstallRoot, "current")),
		os.Symlink("versions/1.0.0", filepath.Join(c.Service.InstallRoot, "last-good"))); err != nil {
		t.Fatal(err)
	}
	return c
}

// lines is a log that a test reads while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// runAgent starts a node, as its unit does: after the watchdog. It is stopped
// when the test ends.
func runAgent(t *testing.T, c node) *Agent { return runOn(t, c, nil) }

// runOn is runAgent on a file system whose changes seam decides on, if it is not nil.
func runOn(t *testing.T, c node, seam fsutil.Seam) *Agent {
	t.Helper()
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	if seam != nil {
		a.c.Layout = a.c.Layout.On(fsutil.Disk{Seam: seam})
	}
	watchdog.Run(t.Context(), a.c.Layout)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the agent ends: %v", err)
		}
	})
	return a
}

// peer is one session at a manager of the test's.
type peer struct {
	t *testing.T
	*websocket.Conn
	auth *wire.Auth
}

func (p peer) send(m wire.Message) {
	p.t.Helper()
	b, err := wire.Encode(m, time.Now())
	if err == nil {
		err = p.WriteMessage(websocket.TextMessage, b)
	}
	if err != nil {
		p.t.Errorf("send: %v", err)
	}
}

// until reads until it is true of a message. Events are acknowledged.
func (p peer) until(what string, it func(wire.Message) bool) wire.Message {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		_, b, err := p.ReadMessage()
		if err != nil {
			p.t.Errorf("waiting for %s: %v", what, err)
			return nil
		}
		env, err := wire.Decode(b)
		if err != nil {
			p.t.Errorf("the node sends %.100q: %v", b, err)
			return nil
		}
		if e, ok := env.Message.(*wire.Event); ok {
			p.send(&wire.EventAck{EventIDs: []string{e.EventID}})
		}
		if it(env.Message) {
			return env.Message
		}
	}
}

// drain reads until the session ends.
func (p peer) drain() {
	for {
		if _, _, err := p.ReadMessage(); err != nil {
			return
		}
	}
}

func (p peer) ack(id string) *wire.CommandAck {
	p.t.Helper()
	m, _ := p.until("the ack of "+id, func(m wire.Message) bool {
		a, ok := m.(*wire.CommandAck)
		return ok && a.CommandID == id
	}).(*wire.CommandAck)
	if m == nil {
		return &wire.CommandAck{}
	}
	return m
}

func upgradeTo(id, version string) *wire.Command {
	return &wire.Command{CommandID: id, Action: wire.Action{Type: wire.ActionUpgrade, Version: version}}
}

var acks = []string{wire.FeatureEventAck}

// welcome answers auth as it should be answered.
func (p peer) welcome() {
	if p.auth.NodeID == "" {
		p.send(&wire.RegisterAck{NodeID: "n", NodeSecret: "s", Features: acks})
	} else {
		p.send(&wire.AuthOK{Features: acks})
	}
}

// manager serves each session by serve, and returns its URL.
func manager(t *testing.T, serve func(p peer)) string {
	t.Helper()
	var up websocket.Upgrader
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		_, b, err := conn.ReadMessage()
		if err != nil {
			return
		}
		env, err := wire.Decode(b)
		auth, ok := env.Message.(*wire.Auth)
		if err != nil || !ok {
			t.Errorf("the node begins with %.100q: %v", b, err)
			return
		}
		serve(peer{t, conn, auth})
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

func wait(t *testing.T, what string, it func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !it(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

type counting struct{ n *atomic.Int64 }

func (c counting) Change(_ fsutil.Op, make func() error) error {
	c.n.Add(1)
	return make()
}
