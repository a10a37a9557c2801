// Package rig puts a whole upgrade system on one machine, of real parts: the
// manager with its database, a release host, and nodes that run a real agent
// under package supervise. The demo and the end-to-end tests drive it.
//
// Everything lies under one directory and listens on loopback; Close ends all
// of it. It needs no root, and installs nothing.
package rig

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// Rig is one system. Its methods are safe for concurrent use.
type Rig struct {
	Dir      string         // of everything
	Releases string         // of package fakerelease
	Manager  *server.Server // replaced by RestartManager
	// WrapHost, if set before a request, changes what the release host does.
	WrapHost atomic.Pointer[func(http.Handler) http.Handler]
	URL      string // https://127.0.0.1:PORT of the manager
	Host     string // https://127.0.0.1:PORT of the release host
	Timeline *Timeline

	adminToken, nodeToken string
	cert                  selfsign.Cert
	store                 *store.Store
	servers               []*http.Server
	client                *http.Client
	handler               atomic.Pointer[http.Handler] // of Manager
	ctx                   context.Context              // done after Close
	cancel                context.CancelFunc
	wg                    sync.WaitGroup
	log                   *os.File
}

// New starts a manager and a release host that keep everything under dir.
// tell, if set, gets every entry of the timeline as it happens.
func New(dir string, tell func(Entry)) (_ *Rig, err error) {
	r := &Rig{Dir: dir, Releases: filepath.Join(dir, "releases"), Timeline: newTimeline(tell),
		adminToken: server.NewSecret(), nodeToken: server.NewSecret()}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if r.cert, err = selfsign.Ensure(filepath.Join(dir, "tls")); err != nil {
		return nil, err
	}
	if r.log, err = os.Create(filepath.Join(dir, "manager.log")); err != nil {
		return nil, err
	}
	if r.store, err = store.Open(r.ctx, filepath.Join(dir, "manager.db")); err != nil {
		return nil, err
	}
	if err := r.store.AddToken(r.ctx, server.Hash(r.nodeToken)); err != nil {
		return nil, err
	}
	if err := r.newManager(); err != nil {
		return nil, err
	}
	hs := r.Manager.HTTPServer()
	hs.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { (*r.handler.Load()).ServeHTTP(w, req) })
	if r.URL, err = r.serve(hs); err != nil {
		return nil, err
	}
	releases := fakerelease.Handler(r.Releases)
	host, err := r.serve(&http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := releases
		if wrap := r.WrapHost.Load(); wrap != nil {
			h = (*wrap)(h)
		}
		h.ServeHTTP(w, req)
	})})
	if err != nil {
		return nil, err
	}
	r.Host = host
	if err := fakerelease.SetHost(r.Releases, host, r.cert.PEM); err != nil {
		return nil, err
	}
	r.client = &http.Client{Transport: &http.Transport{TLSClientConfig: r.ClientTLS()}}
	return r, r.follow(r.ctx)
}

func (r *Rig) newManager() error {
	m, err := server.New(server.Config{Store: r.store, Log: zerolog.New(r.log).With().Timestamp().Logger(), AdminToken: r.adminToken})
	if err != nil {
		return err
	}
	h, err := web.Handler(m, m.Log)
	if err != nil {
		m.Close()
		return err
	}
	r.Manager = m
	r.handler.Store(&h)
	return nil
}

// RestartManager ends the manager, with all its sessions, and starts another
// on the same store and address. What the stream tells meanwhile is not in the
// timeline.
func (r *Rig) RestartManager() error {
	r.Manager.Close()
	if err := r.newManager(); err != nil {
		return err
	}
	return r.follow(r.ctx)
}

// Serve serves h with the certificate that the nodes expect of their manager,
// and returns its URL.
func (r *Rig) Serve(h http.Handler) (string, error) {
	return r.serve(&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second})
}

// serve listens on a free port of loopback and returns the URL.
func (r *Rig) serve(s *http.Server) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{r.cert.TLS}, MinVersion: tls.VersionTLS12}
	s.ErrorLog = nil
	r.servers = append(r.servers, s)
	r.wg.Go(func() { s.ServeTLS(l, "", "") })
	return "https://" + l.Addr().String(), nil
}

// Close stops the manager and the release host; stop the nodes first.
func (r *Rig) Close() {
	r.cancel()
	if r.Manager != nil {
		r.Manager.Close()
	}
	for _, s := range r.servers {
		s.Close()
	}
	r.wg.Wait()
	if r.store != nil {
		r.store.Close()
	}
	if r.log != nil {
		r.log.Close()
	}
}

// Publish makes a release for this machine.
func (r *Rig) Publish(o fakerelease.Options) (fakerelease.Published, error) {
	return fakerelease.Publish(r.Releases, o)
}

// Registration is what a node needs to register: the manager's URL, a token,
// and the fingerprint of the manager's certificate.
func (r *Rig) Registration() (url, token, fingerprint string) {
	return "wss" + strings.TrimPrefix(r.URL, "https"), r.nodeToken, r.cert.Fingerprint
}

// ClientTLS is what a client of the manager believes.
func (r *Rig) ClientTLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.cert.PEM)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// TrustDir is what the simulation builds of the nodes believe.
func (r *Rig) TrustDir() string { return filepath.Join(r.Releases, "trust") }

// follow copies the manager's event stream into the timeline.
func (r *Rig) follow(ctx context.Context) error {
	resp, err := r.do(ctx, http.MethodGet, "/api/v1/events/stream", nil)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() { // the comment that says that it listens
		resp.Body.Close()
		return fmt.Errorf("event stream: %w", errors.Join(io.ErrUnexpectedEOF, lines.Err()))
	}
	r.wg.Go(func() {
		defer resp.Body.Close()
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var e Entry
			if json.Unmarshal([]byte(data), &e) == nil {
				e.At, e.From = time.Now(), FromManager
				r.Timeline.add(e)
			}
		}
	})
	return nil
}

func (r *Rig) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, r.URL+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+r.adminToken)
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	return resp, nil
}

// Call makes a REST call and decodes its answer into out.
func (r *Rig) Call(ctx context.Context, method, path string, body, out any) error {
	resp, err := r.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

// Upgrade asks for a version on a node, as an operator does; it returns the
// command's id.
func (r *Rig) Upgrade(ctx context.Context, nodeID, version string) (string, error) {
	var answer struct {
		CommandID string `json:"command_id"`
	}
	err := r.Call(ctx, http.MethodPost, "/api/v1/nodes/"+nodeID+"/upgrade", map[string]string{"version": version}, &answer)
	return answer.CommandID, err
}

// UpgradeInAnyCase gives a node a command whatever else it does, as a compromised
// manager would: the command is in the store, and a manager that starts again sends it.
func (r *Rig) UpgradeInAnyCase(ctx context.Context, nodeID, version string) error {
	action, err := json.Marshal(wire.Action{Type: wire.ActionUpgrade, Version: version, Channel: release.DefaultChannel})
	if err != nil {
		return err
	}
	now := time.Now()
	c := store.Command{ID: "any-" + version, NodeID: nodeID, Version: version, Channel: release.DefaultChannel, Action: action, CreatedAt: now}
	if err := r.store.AddCommand(ctx, c, api.AuditEntry{Time: now, Actor: "test", Action: "node.upgrade.request", Target: nodeID, Details: []byte("{}")}); err != nil {
		return err
	}
	return r.RestartManager()
}

// NodeRecord is a node as the manager's API shows it.
type NodeRecord struct {
	ID           string   `json:"id"`
	Online       bool     `json:"online"`
	Version      string   `json:"version"`
	UpgradeState string   `json:"upgrade_state"`
	ErrorCode    string   `json:"error_code"`
	Capabilities []string `json:"capabilities"`
}

// Node returns the manager's record of a node.
func (r *Rig) Node(ctx context.Context, id string) (NodeRecord, error) {
	var n NodeRecord
	err := r.Call(ctx, http.MethodGet, "/api/v1/nodes/"+id, nil, &n)
	return n, err
}
