package server

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

const (
	queueLen     = 64 // messages that wait for a node; more, and it is too slow
	writeTimeout = 10 * time.Second
	resendWithin = 24 * time.Hour // age of a command that is still sent

	// What a session reads: a node that comes back delivers an outbox of at most 1,000
	// events at once, and then little. Beyond that it waits, and nobody else does.
	messageRate, messageBurst = 100, 2_000
	byteRate, byteBurst       = 4 << 20, 32 << 20
)

// session is the connection of one node. It is known by its address: an old
// one that ends late does not take its successor offline.
type session struct {
	s       *Server
	conn    *websocket.Conn
	source  string // as limits count it
	address string
	nodeID  string
	queue   chan wire.Message // to the writer
	cancel  context.CancelFunc
	caps    []string // of the last health beat; belongs to the reader
	beats   int

	replaced  atomic.Bool  // another connection of the node took its place
	lastFrame atomic.Int64 // Unix time in seconds of the node's last frame

	serial uint64 // of the session, among all of this Server

	// Guarded by Server.mu.
	began     startTime  // earliest start of the node's process that a beat showed
	older     bool       // it contradicts another session
	displaced *displaced // the session whose place this one took, until the first beat
}

// upgrader keeps the read buffer that the HTTP server made, and shares those for
// writing: a socket that waits costs little.
var upgrader = websocket.Upgrader{HandshakeTimeout: 10 * time.Second, WriteBufferSize: 4 << 10, WriteBufferPool: &sync.Pool{}}

// serveNode is GET /ws/node.
func (s *Server) serveNode(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	retry, closed := s.unavailable, s.closed
	if !closed {
		s.wg.Add(1)
		defer s.wg.Done()
	}
	s.mu.Unlock()
	if retry > 0 || closed {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(retry/time.Second))))
		fail(w, http.StatusServiceUnavailable, api.CodeUnavailable, "the manager is not available; come back later")
		return
	}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	ss := &session{s: s, conn: conn, source: sourceOf(r.RemoteAddr), queue: make(chan wire.Message, queueLen), cancel: cancel, serial: s.serial.Add(1)}
	ss.address, _, _ = net.SplitHostPort(r.RemoteAddr)
	stop := context.AfterFunc(ctx, func() {
		code, text := websocket.CloseGoingAway, ""
		if ss.replaced.Load() {
			// The reader waits for the answer, which shows that a device is still there.
			ss.close(wire.CloseReplaced, "another connection of this node took its place")
			conn.SetReadDeadline(time.Now().Add(closePatience))
			return
		}
		ss.close(code, text)
		conn.Close()
	})
	defer stop()
	s.sockets.opened(ss)
	defer s.sockets.closed(ss)
	if err := ss.run(ctx); err != nil && s.ctx.Err() == nil {
		s.Log.Info().Str("node_id", ss.nodeID).Err(err).Msg("session ends")
	}
}

func (ss *session) close(code int, text string) {
	ss.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(time.Second))
}

func (ss *session) write(m wire.Message) error {
	b, err := wire.Encode(m, time.Now())
	if err != nil {
		return err
	}
	ss.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return ss.conn.WriteMessage(websocket.TextMessage, b)
}

func (ss *session) run(ctx context.Context) error {
	s := ss.s
	defer s.leave(ss)
	auth, err := ss.authenticate(ctx)
	if err != nil {
		if r := (*refusal)(nil); errors.As(err, &r) {
			ss.refuse(r)
		}
		return err
	}
	s.stir(ss.nodeID)
	s.Log.Info().Str("node_id", ss.nodeID).Str("version", auth.SoftwareVersion).Msg("node authenticated")
	s.stream.send(api.NodeRecord{Type: api.RecordAuthenticated, Time: time.Now().UTC(), NodeID: ss.nodeID, Version: auth.SoftwareVersion})

	writer := make(chan struct{})
	go func() {
		defer close(writer)
		ss.writeAll(ctx)
		ss.cancel() // which ends the reader
	}()
	defer func() { ss.cancel(); <-writer }()
	// A session that is replaced meanwhile still waits for the answer to its close frame.
	if err := ss.resend(ctx); err != nil && !ss.replaced.Load() {
		return err
	}
	err = ss.readAll(ctx)
	if ss.replaced.Load() && websocket.IsCloseError(err, wire.CloseReplaced) {
		s.answeredReplaced(ss)
	}
	s.leave(ss) // before the connection is closed: a node that waits for that finds its going recorded
	return err
}

// send queues m. A node that does not keep up is disconnected: what it missed
// is sent again when it comes back.
func (ss *session) send(m wire.Message) {
	select {
	case ss.queue <- m:
	default:
		ss.cancel()
	}
}

func (ss *session) writeAll(ctx context.Context) {
	ping := time.NewTicker(wire.HealthInterval)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case m := <-ss.queue:
			if c, ok := m.(*wire.Command); ok {
				// First, and also when the session ends just now: a command that may have
				// arrived is never taken for one that was not sent.
				if err = ss.s.Store.RecordSent(context.WithoutCancel(ctx), c.CommandID, time.Now()); err != nil {
					break
				}
				ss.s.metrics.commands.Inc()
			}
			err = ss.write(m)
		case <-ping.C:
			err = ss.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout))
		}
		if err != nil {
			return
		}
	}
}

// resend queues, oldest first, what the node has not acknowledged. Of a node whose
// identity two devices use it queues nothing.
func (ss *session) resend(ctx context.Context) error {
	ss.s.commanding.Lock()
	defer ss.s.commanding.Unlock()
	n, err := ss.s.Store.Node(ctx, ss.nodeID)
	if err != nil || !n.Duplicate.Since.IsZero() {
		return err
	}
	cs, err := ss.s.Store.Commands(ctx, ss.nodeID, queueLen/2)
	if err != nil {
		return err
	}
	for _, c := range slices.Backward(cs) {
		if c.AckedAt.IsZero() && time.Since(c.CreatedAt) < resendWithin {
			ss.sendCommand(c)
		}
	}
	return nil
}

func (ss *session) sendCommand(c store.Command) {
	m := &wire.Command{CommandID: c.ID}
	if err := json.Unmarshal(c.Action, &m.Action); err != nil {
		ss.s.Log.Error().Str("command_id", c.ID).Err(err).Msg("stored command is unreadable")
		return
	}
	ss.send(m)
}

func (ss *session) readAll(ctx context.Context) error {
	alive := func() {
		if ss.replaced.Load() {
			return
		}
		ss.lastFrame.Store(time.Now().Unix())
		ss.conn.SetReadDeadline(time.Now().Add(wire.ReadTimeout))
	}
	alive()
	messages, bytes := rate.NewLimiter(messageRate, messageBurst), rate.NewLimiter(byteRate, byteBurst)
	answer := ss.conn.PingHandler()
	ss.conn.SetPingHandler(func(data string) error { alive(); return answer(data) })
	ss.conn.SetPongHandler(func(string) error { alive(); return nil })
	for {
		_, b, err := ss.conn.ReadMessage()
		if err != nil {
			return err
		}
		if ss.replaced.Load() {
			continue // the session that took its place has what counts
		}
		alive()
		if err := errors.Join(messages.Wait(ctx), bytes.WaitN(ctx, len(b))); err != nil && !ss.replaced.Load() {
			return err
		}
		env, err := wire.Decode(b)
		if err != nil {
			ss.s.Log.Debug().Str("node_id", ss.nodeID).Err(err).Msg("message ignored")
			continue
		}
		if err := ss.handle(ctx, env); err != nil && !ss.replaced.Load() {
			return err
		}
	}
}

// handle stores what the node says. An error is the store's.
func (ss *session) handle(ctx context.Context, env wire.Envelope) error {
	now := time.Now()
	switch m := env.Message.(type) {
	case *wire.Health:
		n := store.Node{ID: ss.nodeID, Version: m.Version, LastSeen: now, Capabilities: append([]string{}, m.Capabilities...),
			Health: m.Status, Unavailable: m.UpgradeUnavailable}
		if m.Upgrade != nil {
			b, err := json.Marshal(m.Upgrade)
			if err != nil {
				return err
			}
			n.Upgrade = b
		}
		if err := ss.s.Store.RecordHealth(ctx, n); err != nil {
			return err
		}
		ss.s.sawUptime(ss, m.UptimeSecs, now)
		if ss.beats++; ss.beats == 1 || !slices.Equal(ss.caps, m.Capabilities) {
			ss.caps = m.Capabilities
			ss.s.stream.send(api.CapabilityRecord{Type: api.RecordCapabilities, Time: now.UTC(), NodeID: ss.nodeID, Version: m.Version, Capabilities: n.Capabilities})
		}
	case *wire.Event:
		return ss.event(ctx, env.Time, m)
	case *wire.CommandAck:
		return ss.ack(ctx, m)
	case *wire.Ping:
		ss.send(&wire.Pong{})
	default:
		ss.s.Log.Debug().Str("node_id", ss.nodeID).Type("message", m).Msg("message ignored")
	}
	return nil
}

func (ss *session) event(ctx context.Context, at time.Time, m *wire.Event) error {
	details, err := encode(m.Details)
	if err != nil {
		return err
	}
	e := api.Event{
		EventID: m.EventID, NodeID: ss.nodeID, Time: at, ReceivedAt: time.Now().UTC(), Severity: string(m.Severity), Category: m.Category,
		Message: m.Message, ErrorCode: string(m.Details.ErrorCode), CommandID: m.Details.CommandID, Details: details,
	}
	added, err := ss.s.addEvent(ctx, &e)
	if err != nil {
		return err
	}
	if m.EventID != "" {
		ss.send(&wire.EventAck{EventIDs: []string{m.EventID}})
	}
	if added {
		ss.s.metrics.events.WithLabelValues(e.Severity).Inc() // one of release.Severities
		ss.s.Log.Info().Str("node_id", ss.nodeID).Str("command_id", e.CommandID).Str("error_code", e.ErrorCode).Msg(e.Message)
		ss.s.stir(ss.nodeID)
	}
	return nil
}

// addEvent stores an event and tells the streams, in the order of their seq:
// whoever has seen one has seen all before it.
func (s *Server) addEvent(ctx context.Context, e *api.Event) (bool, error) {
	s.adding.Lock()
	defer s.adding.Unlock()
	added, err := s.Store.AddEvent(ctx, e)
	if added {
		s.stream.send(api.EventRecord{Type: api.RecordEvent, Event: *e})
	}
	return added, err
}

func (ss *session) ack(ctx context.Context, m *wire.CommandAck) error {
	c := store.Command{ID: m.CommandID, NodeID: ss.nodeID, AckedAt: time.Now(), Success: m.Success, ErrorCode: string(m.ErrorCode), Error: m.Error}
	if m.Data != nil {
		b, err := json.Marshal(m.Data)
		if err != nil {
			return err
		}
		c.Data = b
	}
	first, err := ss.s.Store.RecordAck(ctx, c)
	if err == nil && first {
		ss.s.metrics.acks.WithLabelValues(strconv.FormatBool(c.Success)).Inc()
		ss.s.Log.Info().Str("node_id", ss.nodeID).Str("command_id", c.ID).Bool("success", c.Success).Str("error_code", c.ErrorCode).Msg("command acknowledged")
		ss.s.stream.send(api.AckRecord{Type: api.RecordAck, Time: time.Now().UTC(), NodeID: ss.nodeID, CommandID: c.ID, Success: c.Success, ErrorCode: c.ErrorCode})
		ss.s.stir(ss.nodeID)
	}
	return err
}
