// Package nodes serves the WebSockets of nodes: it authenticates them, sends them
// commands, and stores their health, events and acknowledgements.
//
// A command is stored before it is sent, and sent again at every authentication of its
// node until the node has acknowledged it. An event is stored before it is
// acknowledged. So the manager can be killed at any moment without losing either.
//
// While the store is away, new connections get 503 before they are upgraded, and sessions
// stay: what their nodes send waits in memory, within bounds. The trouble of the store is
// never an answer about a node.
//
// The package does not decide who gets a command. It never sends one to a node whose
// identity two devices use.
package nodes

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
	"github.com/rs/zerolog"
)

// Config is what a Hub needs.
type Config struct {
	Store *store.Store
	Log   zerolog.Logger
	// CommandLock is held while a goroutine decides whether a node gets a command, stores
	// it and sends it, so that the three are one step. The Hub holds it while it queues
	// commands again, and while it records that a command is sent.
	CommandLock *sync.Mutex
	Publish     func(record any)    // passes a record to the event streams
	NodeChanged func(nodeID string) // reports that something about a node is new
	Metrics     Metrics
	// Age returns how long a manager has run since a time. The life of a command to an author's
	// action does not run while none did.
	Age func(since time.Time) time.Duration
	// MaySend reports whether a stored command may be sent now, also one that was sent before,
	// and may withdraw it; nil means always. CommandLock is held.
	MaySend func(ctx context.Context, c store.Command, n store.Node) (bool, error)
	// MayAct reports whether an identity still has the right to send commands to author's
	// actions of nodes of a group; nil means always.
	MayAct func(ctx context.Context, acting, groupID string) (bool, error)
}

// Metrics counts what happens.
type Metrics interface {
	EventStored(severity string)
	CommandSent()
	CommandAcknowledged(success bool)
	AuthenticationRefused()
}

// Hub is the sessions of all nodes. It is the http.Handler of wire.Path. Its methods
// are safe for concurrent use.
type Hub struct {
	Config
	// Pending are the nodes whose credentials the manager does not know.
	Pending Pending

	ctx        context.Context // of all sessions; done after Close
	stop       context.CancelFunc
	wg         sync.WaitGroup
	strangers  strangers
	refusals   refusals
	duplicates duplicates
	presence   presence
	probes     probes
	inboxes    inboxes
	ending     atomic.Bool   // each session ends when it has authenticated
	serial     atomic.Uint64 // of the last session
	adding     sync.Mutex    // makes events appear in the streams in the order of their Seq

	mu          sync.Mutex
	closed      bool
	unavailable time.Duration // Retry-After of new sessions; 0: they are served
}

// New returns a Hub whose sessions end with ctx.
func New(ctx context.Context, c Config) *Hub {
	h := &Hub{Config: c}
	h.presence = presence{Config: c, duplicates: &h.duplicates, sessions: make(map[string]*session), unrecorded: make(map[string]time.Time)}
	h.ctx, h.stop = context.WithCancel(ctx)
	h.strangers.room = limit.Room[*session]{BySource: strangersBySource, InAll: strangersInAll}
	return h
}

// ServeHTTP serves the session of one node.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	retry, closed := h.unavailable, h.closed
	if !closed {
		h.wg.Add(1)
		defer h.wg.Done()
	}
	h.mu.Unlock()
	if _, err := h.Store.Away(); err != nil && retry == 0 {
		retry = storeRetry
	}
	if retry > 0 || closed {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(retry/time.Second))))
		answer.Problem(w, http.StatusServiceUnavailable, api.CodeUnavailable, "the manager is not available; come back later")
		return
	}
	conn, err := upgrader.Upgrade(w, r, http.Header{wire.FeaturesHeader: {wire.FeatureProbe}})
	if err != nil {
		return // the upgrader has answered
	}
	defer conn.Close()
	h.serve(conn, r.RemoteAddr)
}

// restarts is why sessions end with the manager.
const restarts = "the manager restarts; reconnect with jitter"

// Close ends all sessions and waits for them. It tells the nodes that the service
// restarts (close code 1012), so that each reconnects after a random pause.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	sessions := h.presence.all()
	if len(sessions) > 0 {
		h.Log.Info().Int("nodes", len(sessions)).Msg("manager is shutting down; nodes will reconnect")
	}
	var closing sync.WaitGroup
	for _, s := range append(sessions, h.probes.all()...) {
		closing.Go(func() { s.socket.close(websocket.CloseServiceRestart, restarts) })
	}
	closing.Wait()
	h.stop()
	h.wg.Wait()
}

// SetUnavailable makes the Hub refuse new sessions with 503 and a Retry-After, as an
// overloaded manager does; 0 ends that.
func (h *Hub) SetUnavailable(retryAfter time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unavailable = retryAfter
}

// SetEnding makes the Hub end each session right after its authentication, and refuse
// probes, as a manager does whose sessions fail.
func (h *Hub) SetEnding(on bool) { h.ending.Store(on) }

// Online reports whether a node has a session.
func (h *Hub) Online(nodeID string) bool { return h.presence.session(nodeID) != nil }

// Reported reports whether a node has a session, and its health in that is stored.
func (h *Hub) Reported(nodeID string) bool {
	s := h.presence.session(nodeID)
	return s != nil && s.reported.Load()
}

// Count returns how many nodes have a session.
func (h *Hub) Count() int { return len(h.presence.all()) }

// Send sends a stored command or, if it was withdrawn, its withdrawal, if its node is online.
// Otherwise the node gets it when it authenticates. The caller holds CommandLock.
func (h *Hub) Send(c store.Command) {
	if s := h.presence.session(c.NodeID); s != nil {
		s.sendCommand(c)
	}
}

// Resend sends a node again what it has not acknowledged, if it is online.
func Resend(ctx context.Context, h *Hub, nodeID string) error {
	if s := h.presence.session(nodeID); s != nil {
		return s.resend(ctx)
	}
	return nil
}

// ResendAll sends all nodes that are online what they have not acknowledged.
func ResendAll(h *Hub) {
	for _, s := range h.presence.all() {
		sendMissed(s)
	}
}

// Disconnect ends the session of a node that was removed from the store. The node first gets the
// withdrawals that the removal decided, and has some seconds to answer them.
func (h *Hub) Disconnect(ctx context.Context, nodeID string) {
	// A session that authenticated before the removal exists by now.
	if s := h.presence.sessionAfterChange(nodeID); s != nil {
		withdrawLast(ctx, s)
		s.socket.close(websocket.ClosePolicyViolation, "this node was removed from the manager")
		s.cancel()
	}
	for _, s := range h.probes.of(nodeID) {
		s.end(websocket.ClosePolicyViolation, "this node was removed from the manager")
	}
}

// ForgetDuplicate discards what suggests that two devices use a node's identity. What
// arrives later counts as new.
func (h *Hub) ForgetDuplicate(nodeID string) { h.duplicates.forget(nodeID) }

// addEvent stores an event and publishes it.
func (h *Hub) addEvent(ctx context.Context, e *api.Event) (added bool, err error) {
	h.adding.Lock()
	defer h.adding.Unlock()
	added, err = h.Store.AddEvent(ctx, e)
	if added {
		h.Publish(api.EventRecord{Type: api.RecordEvent, Event: *e})
	}
	return added, err
}

// serve runs the session of a connection.
func (h *Hub) serve(conn *websocket.Conn, remote string) {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	s := newSession(ctx, h, conn, remote, cancel)
	stop := context.AfterFunc(ctx, func() {
		if s.replaced.Load() {
			// The reader waits for the answer, which shows that a device is still connected.
			s.socket.close(wire.CloseReplaced, "another connection of this node took its place")
			conn.SetReadDeadline(time.Now().Add(closePatience))
			return
		}
		if h.ctx.Err() != nil { // it began while Close ended the others
			s.socket.close(websocket.CloseServiceRestart, restarts)
		}
		s.socket.close(websocket.CloseGoingAway, "")
		conn.Close()
	})
	defer stop()
	h.strangers.enter(s)
	defer h.strangers.leave(s)
	if err := s.run(ctx); err != nil && h.ctx.Err() == nil {
		what := "session ended"
		if s.probe {
			what = "probe ended"
		}
		h.Log.Info().Str("node_id", s.nodeID).Err(err).Msg(what)
	}
}
