package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

const (
	testAdmin = "admin-secret"
	testToken = "registration-secret"
)

// testManager is a real manager with the data directory that the commands read.
type testManager struct {
	t    *testing.T
	dir  string
	addr string
	cert selfsign.Cert
	st   *store.Store
	srv  *server.Server
	hs   *http.Server
}

// dataDir makes a data directory for a manager at url.
func dataDir(t *testing.T, url string) (string, selfsign.Cert) {
	t.Helper()
	dir := t.TempDir()
	cert, err := selfsign.Ensure(filepath.Join(dir, "tls"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"admin.token": testAdmin, urlFile: url} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, cert
}

func startManager(t *testing.T) *testManager {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &testManager{t: t, addr: l.Addr().String()}
	m.dir, m.cert = dataDir(t, "https://"+m.addr)
	if m.st, err = store.Open(t.Context(), filepath.Join(m.dir, "manager.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.st.Close() })
	if err := m.st.AddToken(t.Context(), secret.Hash(testToken)); err != nil {
		t.Fatal(err)
	}
	m.serve(l)
	t.Cleanup(m.stop)
	return m
}

func (m *testManager) serve(l net.Listener) {
	m.t.Helper()
	var err error
	if m.srv, err = server.New(server.Config{Store: m.st, PasswordMemory: 32, AdminToken: testAdmin, Log: zerolog.Nop()}); err != nil {
		m.t.Fatal(err)
	}
	m.hs = m.srv.HTTPServer()
	m.hs.TLSConfig = &tls.Config{Certificates: []tls.Certificate{m.cert.TLS}, MinVersion: tls.VersionTLS12}
	go m.hs.ServeTLS(l, "", "")
}

func (m *testManager) stop() {
	m.hs.Close()
	m.srv.Close()
}

// start restarts the manager at the same address.
func (m *testManager) start() {
	m.t.Helper()
	l, err := net.Listen("tcp", m.addr)
	if err != nil {
		m.t.Fatal(err)
	}
	m.serve(l)
}

// fleet starts nodes, and waits until all of them can be upgraded.
func (m *testManager) fleet(ctx context.Context, c fleet.Config) []api.Node {
	m.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(m.cert.PEM)
	c.URL, c.Token, c.TLS = "wss://"+m.addr+wire.Path, testToken, &tls.Config{RootCAs: pool}
	if c.Step == 0 {
		c.Step = 10 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(ctx)
	f, err := fleet.Start(ctx, c)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { cancel(); f.Wait() })
	var list []api.Node
	m.await("the nodes can be upgraded", func() bool {
		nodes, err := m.client().AllNodes(m.t.Context(), api.NodeQuery{})
		if err != nil {
			m.t.Fatal(err)
		}
		list = nil
		for _, n := range nodes {
			if n.Online && len(n.Capabilities) > 0 {
				list = append(list, n)
			}
		}
		return len(list) == c.Nodes
	})
	return list
}

// client returns a client of the manager.
func (m *testManager) client() *api.Client {
	m.t.Helper()
	c := client{dir: m.dir}
	if err := c.connect(); err != nil {
		m.t.Fatal(err)
	}
	return c.Client
}

// node returns a node of the manager.
func (m *testManager) node(id string) api.Node {
	m.t.Helper()
	n, err := m.client().Node(m.t.Context(), id)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// newestEvent returns the Seq of the manager's newest event.
func (m *testManager) newestEvent() int64 {
	m.t.Helper()
	seq, err := m.client().NewestEvent(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return seq
}

// await waits until is returns true.
func (m *testManager) await(what string, is func() bool) {
	m.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(30 * time.Second); !is(); {
		select {
		case <-tick.C:
		case <-end:
			m.t.Fatalf("waiting in vain until %s", what)
		}
	}
}

// run runs a command on the manager.
func (m *testManager) run(args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	return runIn(m.t, m.dir, args...)
}

func runIn(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRootCmd()
	root.SetIn(strings.NewReader("")) // the terminal of who runs the tests is asked nothing
	code = cli.Run(t.Context(), root, append(args, "--dir", dir), &out, &errs)
	return out.String(), errs.String(), code
}

// group makes a group of nodes.
func (m *testManager) group(name string, nodes []api.Node) {
	m.t.Helper()
	c := m.client()
	g, err := c.CreateGroup(m.t.Context(), name)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, n := range nodes {
		if err := c.SetGroup(m.t.Context(), n.ID, g.ID); err != nil {
			m.t.Fatal(err)
		}
	}
}

func validJSONLines(t *testing.T, text string) []map[string]any {
	t.Helper()
	var list []map[string]any
	for line := range strings.Lines(text) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%q is not JSON: %v", line, err)
		}
		list = append(list, v)
	}
	return list
}
