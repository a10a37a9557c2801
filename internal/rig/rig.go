// Package rig runs a complete upgrade system of real parts on one machine: a manager
// with its database, a release host, and nodes with a real agent under package
// supervise. The demo and the end-to-end tests use it.
//
// All files are in one directory, and all servers listen on loopback. Close ends all of
// them. A rig needs no root and installs nothing.
package rig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// Rig is one system. Its methods are safe for concurrent use.
type Rig struct {
	Dir      string         // of all files
	Releases string         // directory of package fakerelease
	Manager  *server.Server // replaced by RestartManager
	// WrapHost, if set before a request, changes the answers of the release host.
	WrapHost atomic.Pointer[func(http.Handler) http.Handler]
	URL      string      // https://127.0.0.1:PORT of the manager
	Client   *api.Client // of the manager, with a super admin's token
	Host     string      // https://127.0.0.1:PORT of the release host
	Timeline *Timeline

	adminToken, nodeToken string
	cert                  selfsign.Cert
	store                 *store.Store
	servers               []*http.Server
	handler               atomic.Pointer[http.Handler] // of Manager
	ctx                   context.Context              // done after Close
	cancel                context.CancelFunc
	wg                    sync.WaitGroup
	log                   *os.File
}

// New starts a manager and a release host with all their files in dir. They run until
// Close; ctx bounds only their start. observe, unless it is nil, gets every entry of the
// timeline when it is added.
func New(ctx context.Context, dir string, observe func(Entry)) (_ *Rig, err error) {
	r := &Rig{Dir: dir, Releases: filepath.Join(dir, "releases"), Timeline: newTimeline(observe),
		adminToken: secret.New(), nodeToken: secret.New()}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
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
	if r.store, err = store.Open(ctx, filepath.Join(dir, "manager.db")); err != nil {
		return nil, err
	}
	if err := r.store.AddToken(ctx, secret.Hash(r.nodeToken)); err != nil {
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
	r.Client = &api.Client{BaseURL: r.URL, Token: r.adminToken, HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: r.ClientTLS()}}}
	return r, r.follow(r.ctx)
}

func (r *Rig) newManager() error {
	m, err := server.New(server.Config{Store: r.store, Log: zerolog.New(r.log).With().Timestamp().Logger(), AdminToken: r.adminToken})
	if err != nil {
		return err
	}
	h, err := web.Handler(m, m.Users, m.Log)
	if err != nil {
		m.Close()
		return err
	}
	r.Manager = m
	r.handler.Store(&h)
	return nil
}

// RestartManager ends the manager with all its sessions, and starts another one with the
// same store and address. The timeline misses the records of this time.
func (r *Rig) RestartManager() error {
	r.Manager.Close()
	if err := r.newManager(); err != nil {
		return err
	}
	return r.follow(r.ctx)
}

// Serve serves h with the manager's certificate, and returns its URL.
func (r *Rig) Serve(h http.Handler) (string, error) {
	return r.serve(&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second})
}

// serve serves s on a free port of loopback, and returns its URL.
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

// Publish publishes a release for this machine.
func (r *Rig) Publish(o fakerelease.Options) (fakerelease.Published, error) {
	return fakerelease.Publish(r.Releases, o)
}

// Registration returns what a node needs to register: the manager's URL, a token, and the
// fingerprint of the manager's certificate.
func (r *Rig) Registration() (url, token, fingerprint string) {
	return "wss" + strings.TrimPrefix(r.URL, "https"), r.nodeToken, r.cert.Fingerprint
}

// ClientTLS returns the configuration of a client that trusts the manager.
func (r *Rig) ClientTLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.cert.PEM)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// TrustDir returns the directory that the nodes' simulation builds trust.
func (r *Rig) TrustDir() string { return fakerelease.TrustDir(r.Releases) }

// follow copies the manager's event stream to the timeline.
func (r *Rig) follow(ctx context.Context) error {
	stream, err := r.Client.Stream(ctx, 0)
	if err != nil {
		return err
	}
	if _, err := stream.Next(); err != nil { // the heartbeat: the manager listens
		stream.Close()
		return err
	}
	r.wg.Go(func() {
		defer stream.Close()
		for {
			record, err := stream.Next()
			if err != nil {
				return
			}
			if record.Type != "" {
				r.Timeline.add(Entry{Record: record, At: time.Now(), From: FromManager})
			}
		}
	})
	return nil
}

// Upgrade requests a version for a node, as an operator does. It returns the id of the
// command.
func (r *Rig) Upgrade(ctx context.Context, nodeID, version string) (string, error) {
	return r.Client.UpgradeNode(ctx, nodeID, api.NodeUpgrade{Version: version})
}

// UpgradeInAnyCase sends a node a command without the manager's checks, as a compromised
// manager would: it adds the command to the store, and restarts the manager, which sends
// it.
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
