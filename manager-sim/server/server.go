// Package server is the manager: the WebSocket that nodes connect to, and the REST API
// that operators and programs use.
//
// A Server is assembled from three parts that do not know each other. Package nodes has
// the sessions of nodes, package engine runs upgrades and rollouts, and package identity
// decides who makes a request. The routes of the API call them; each resource has a type
// of its own.
//
// The store is the truth. A command is durable before it is sent, and an event before it
// is acknowledged. So the manager can be killed at any moment without losing either.
package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/bilbycast/edge-agent/manager-sim/server/nodes"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// Config is what a Server needs.
type Config struct {
	Store *store.Store
	// Rollouts stores the transitions of rollouts; nil means Store. Tests make it fail.
	Rollouts engine.RolloutSaver
	Log      zerolog.Logger
	// AdminToken is the manager's own bearer token; it must not be empty.
	AdminToken string
	// PasswordMemory is how many KiB the hash of a new password takes, 32 to 65536; 0 means
	// 65536, as RFC 9106 recommends. Tests, which sign in often, take less.
	PasswordMemory uint32
	// Releases lists what is published for a device type on a channel, newest first; nil
	// means that nothing is known. A list is kept for five minutes.
	Releases func(ctx context.Context, deviceType, channel string) ([]api.Release, error)
	// Manifest returns the manifest.json of a version as the release host has it, nil if it is
	// not known. A rollout pins its SHA-256. nil means that none is known.
	Manifest func(ctx context.Context, deviceType, channel, version string) ([]byte, error)
	// VanishAfter is the shortest time after which an offline node that kept a rollout's
	// version has vanished; 0 means two minutes.
	VanishAfter time.Duration
}

// Server is the manager. It is an http.Handler.
type Server struct {
	// Users signs users in and out, and creates the first administrator.
	Users *identity.Service
	// Log is Config.Log.
	Log zerolog.Logger

	store  *store.Store
	hub    *nodes.Hub
	bounds *bounds
	mux    *http.ServeMux

	ctx    context.Context // of streams and rollouts; done after Close
	stop   context.CancelFunc
	engine sync.WaitGroup
	closed atomic.Bool
}

// New returns a Server. Close ends it.
func New(c Config) (*Server, error) {
	if c.AdminToken == "" {
		return nil, errors.New("server: AdminToken is empty")
	}
	if c.Store == nil {
		return nil, errors.New("server: no store")
	}
	if c.PasswordMemory != 0 && !identity.MayTake(c.PasswordMemory) {
		return nil, errors.New("server: PasswordMemory must be 32 to 65536 KiB")
	}
	if c.Rollouts == nil {
		c.Rollouts = c.Store
	}
	s := &Server{Users: identity.New(c.Store, c.Log, c.AdminToken, c.PasswordMemory), Log: c.Log, store: c.Store, bounds: newBounds(), mux: http.NewServeMux()}
	// Sessions and rollouts live until Close, longer than any request or caller of New.
	s.ctx, s.stop = context.WithCancel(context.Background())
	clock, err := engine.StartClock(s.ctx, c.Store)
	if err != nil {
		s.stop()
		return nil, err
	}
	h := s.assemble(c, clock)
	s.routes(h, &once{gate: h.users.gate, key: sha256.Sum256([]byte(c.AdminToken))})
	e := h.rollouts.engine
	s.engine.Go(func() { e.Run(s.ctx) })
	s.engine.Go(s.logStore)
	return s, nil
}

// assemble connects the parts: the engine reaches nodes through the hub, and the hub
// notifies the engine and the event streams.
func (s *Server) assemble(c Config, clock *engine.Clock) *handlers {
	h := &handlers{stream: streamRoutes{ctx: s.ctx}}
	h.metrics = newMetrics(func() int { return s.hub.Count() })
	commands := new(sync.Mutex)
	s.hub = nodes.New(s.ctx, nodes.Config{Store: c.Store, Log: c.Log, CommandLock: commands, Publish: h.stream.records.send, Metrics: h.metrics, Age: clock.Age,
		NodeChanged: func(nodeID string) { h.rollouts.engine.NodeChanged(nodeID) },
		MaySend: func(ctx context.Context, cmd store.Command, n store.Node) (bool, error) {
			return h.rollouts.engine.Commands.MaySend(ctx, cmd, n)
		},
		MayAct: func(ctx context.Context, acting, groupID string) (bool, error) {
			return s.Users.May(ctx, acting, api.Operator, groupID)
		}})
	e := engine.New(engine.Config{Store: c.Store, Rollouts: c.Rollouts, Log: c.Log, Nodes: s.hub, CommandLock: commands, Publish: h.stream.records.send, Releases: c.Releases, Manifest: c.Manifest,
		Clock: clock, VanishAfter: c.VanishAfter, Rights: s.Users, Resend: func() { nodes.ResendAll(s.hub) }})

	g := &gate{store: c.Store, log: c.Log, identities: s.Users, metrics: h.metrics}
	v := &nodeViews{gate: g, engine: e, online: s.hub.Online}
	h.nodes = nodeRoutes{g, v, s.hub, commands}
	h.actions = actionRoutes{g, v, s.hub, commands}
	h.pending = pendingRoutes{g, s.hub, e.NodeChanged}
	h.groups = groupRoutes{g, v}
	h.rollouts = rolloutRoutes{g, e}
	h.records = recordRoutes{g, e.Catalogue}
	h.stream.gate = g
	h.users, h.tokens = userRoutes{g}, tokenRoutes{g}
	return h
}

func (s *Server) routes(h *handlers, o *once) {
	s.mux.Handle("GET "+wire.Path, s.hub)
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		answer.JSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	s.mux.HandleFunc("GET /readyz", s.ready)
	routes := h.table()
	doc := openAPI(routes)
	s.mux.HandleFunc("GET /api/v1/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(doc)
	})
	for _, rt := range routes {
		s.mux.HandleFunc(rt.method+" "+rt.path, h.metrics.measured(rt.method+" "+rt.path, o.require(rt.role, o.wrap(rt, rt.handle))))
	}
}

// logStore logs when the database cannot be used, and when it can again.
func (s *Server) logStore() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		since, err := s.store.Away()
		if err == nil {
			continue
		}
		s.Log.Error().Err(err).Msg("the database cannot be used: sessions of nodes stay and wait, new ones are refused with 503")
		select {
		case <-s.ctx.Done():
			return
		case <-s.store.Back():
			s.Log.Info().Str("away", time.Since(since).Round(time.Millisecond).String()).Msg("the database can be used again")
		}
	}
}

// ready reports whether nodes and operators can be served: the database can be written.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.closed.Load() {
		answer.Problem(w, http.StatusServiceUnavailable, api.CodeNotReady, "the manager is stopping")
		return
	}
	if err := s.store.Ready(r.Context()); err != nil {
		s.Log.Warn().Err(err).Msg("manager is not ready")
		w.Header().Set("Retry-After", retryAfter)
		answer.Problem(w, http.StatusServiceUnavailable, api.CodeNotReady, "%s; see the manager's log", troubleText(err))
		return
	}
	answer.JSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

// Bounded returns a handler that serves h. It ends requests whose body does not arrive
// within 30 s, and answers that nobody reads for 30 s. If very many bodies are awaited,
// the oldest end earlier.
func (s *Server) Bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w, r, done := s.bounds.apply(w, r)
		defer done()
		h.ServeHTTP(w, r)
	})
}

// ServeHTTP serves the WebSocket and the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w, r, done := s.bounds.apply(w, r)
	defer done()
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	// The mux knows why it has no route (404 or 405), but would answer in plain text.
	status := &statusWriter{ResponseWriter: headersOnly{w.Header()}}
	h.ServeHTTP(status, r)
	answer.Problem(w, status.status, api.CodeNoSuchCall, "there is no %s %.200s; /api/v1/openapi.json lists the calls", r.Method, r.URL.Path)
}

// headersOnly keeps the headers of an answer, and discards the rest.
type headersOnly struct{ header http.Header }

func (d headersOnly) Header() http.Header         { return d.header }
func (d headersOnly) WriteHeader(int)             {}
func (d headersOnly) Write(b []byte) (int, error) { return len(b), nil }

// Close ends all sessions, streams and rollouts, and waits for the sessions and the
// rollouts. Nodes reconnect by themselves, each after a random pause.
func (s *Server) Close() {
	s.closed.Store(true)
	s.hub.Close()
	s.stop()
	s.engine.Wait()
}

// SetUnavailable makes the manager refuse new sessions of nodes with 503 and a
// Retry-After, as an overloaded manager does; 0 ends that.
func (s *Server) SetUnavailable(retryAfter time.Duration) { s.hub.SetUnavailable(retryAfter) }

// SetEnding makes the manager end each session of a node right after its authentication,
// and refuse probes.
func (s *Server) SetEnding(on bool) { s.hub.SetEnding(on) }
