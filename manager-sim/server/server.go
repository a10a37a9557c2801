// Package server is the simulated manager: the WebSocket that nodes hold, and
// the REST API that operators and programs use.
//
// The store is the truth. A command is durable before it is sent, and is sent
// again at every authentication of its node until the node has acknowledged
// it; an event is stored before it is acknowledged. So the manager can be
// killed at any moment, and no command or event is lost.
package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/gorilla/websocket"
	"github.com/rs/zerolog"
)

// Config is what a Server needs.
type Config struct {
	Store *store.Store
	// Rollouts stores the transitions of rollouts; nil means Store. Tests make it fail.
	Rollouts RolloutSaver
	Log      zerolog.Logger
	// AdminToken is the bearer token of the REST API; it must not be empty.
	AdminToken string
	// Releases lists what is released for a device type on a channel, newest
	// first; nil means nothing. The answer is kept for five minutes.
	Releases func(ctx context.Context, deviceType, channel string) ([]api.Release, error)
}

// RolloutSaver stores a transition of a rollout: *store.Store is one.
type RolloutSaver interface {
	SaveRollout(ctx context.Context, r store.Rollout, commands []store.Command, audits []api.AuditEntry) error
}

// Server is the manager. It is an http.Handler; Close ends its sessions.
type Server struct {
	Config
	mux   *http.ServeMux
	token [32]byte // SHA-256 of AdminToken

	stop   context.CancelFunc
	ctx    context.Context // of all sessions; done after Close
	wg     sync.WaitGroup
	adding sync.Mutex // of events
	// presence orders the records of a node's coming and going with its session.
	presence sync.Mutex
	// commanding makes one step of whether a node may have a command, and giving it.
	commanding sync.Mutex
	stream     broadcast
	// What strangers may do, and what ends with a right.
	refusals attempts // of nodes
	signins  attempts // of users
	hashes   hashQueue
	claiming sync.Mutex
	sockets  sockets
	bodies   bodies
	pending  pendingNodes
	access   access
	streams  openStreams
	uses     tokenUses
	cache    releaseCache
	metrics  *metrics
	// stirred wakes the rollouts, at most once until they have looked.
	stirred chan struct{}

	mu          sync.Mutex
	closed      bool
	sessions    map[string]*session   // by node
	serial      atomic.Uint64         // of the last session
	suspicions  map[string]*suspicion // by node
	dirty       map[string]bool       // nodes of which a rollout should know something new
	claim       string                // hash of the first super admin's link; "" for none
	unavailable time.Duration         // Retry-After of new sessions; 0: they are served
}

// New returns a Server.
func New(c Config) (*Server, error) {
	if c.AdminToken == "" {
		return nil, errors.New("server: AdminToken is empty")
	}
	if c.Store == nil {
		return nil, errors.New("server: no store")
	}
	if c.Rollouts == nil {
		c.Rollouts = c.Store
	}
	s := &Server{Config: c, token: sha256.Sum256([]byte(c.AdminToken)), sessions: make(map[string]*session), dirty: make(map[string]bool), suspicions: make(map[string]*suspicion), stirred: make(chan struct{}, 1)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.sockets.room.bySource, s.sockets.room.inAll = strangersBySource, strangersInAll
	s.bodies.room.bySource, s.bodies.room.inAll = bodiesBySource, bodiesInAll
	s.stream.subscribers = make(map[chan any]bool)
	s.cache.kept = make(map[[2]string]cached)
	s.metrics = newMetrics(s)
	s.routes()
	s.wg.Go(func() { s.runRollouts(s.ctx) })
	return s, nil
}

// ServeHTTP serves the WebSocket and the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w, r, done := s.bound(w, r)
	defer done()
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	// The mux knows why not, and would say so in plain text.
	why := &statusWriter{ResponseWriter: discard{w.Header()}}
	h.ServeHTTP(why, r)
	fail(w, why.status, api.CodeNoSuchCall, "there is no %s %.200s; /api/v1/openapi.json says what there is", r.Method, r.URL.Path)
}

// discard takes the headers, and drops the rest.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(b []byte) (int, error) { return len(b), nil }

// Close ends all sessions and waits for them. It tells the nodes that the
// service restarts (close code 1012): they come back by themselves, each after
// a random pause.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	sessions := slices.Collect(maps.Values(s.sessions))
	s.mu.Unlock()
	if len(sessions) > 0 {
		s.Log.Info().Int("nodes", len(sessions)).Msg("manager is shutting down; nodes will reconnect")
	}
	var told sync.WaitGroup
	for _, ss := range sessions {
		told.Go(func() { ss.close(websocket.CloseServiceRestart, "the manager restarts; reconnect with jitter") })
	}
	told.Wait()
	s.stop()
	s.wg.Wait()
}

// SetUnavailable makes the manager answer new sessions with 503 and that
// Retry-After, as an overloaded one does; 0 ends it.
func (s *Server) SetUnavailable(retryAfter time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unavailable = retryAfter
}

// NewSecret returns 256 random bits as text: a token or a node's secret.
func NewSecret() string { return rand.Text() + rand.Text() }

// Hash is how secrets are kept. They are random, so a plain digest is enough.
func Hash(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}
