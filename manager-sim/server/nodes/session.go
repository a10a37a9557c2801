package nodes

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

const (
	queueLen = 64 // messages that wait for a node; with more, the node is too slow

	// How much of a session is read. A node that reconnects delivers at once an outbox of
	// at most 1,000 events, and then little. Beyond this it waits, and delays no other.
	messageRate, messageBurst = 100, 2_000
	byteRate, byteBurst       = 4 << 20, 32 << 20
)

// session is the connection of one node. Sessions are compared by address: an old one
// that ends late does not take its successor offline.
type session struct {
	socket    socket
	hub       *Hub
	source    string // as limits count it
	address   string
	nodeID    string
	queue     chan wire.Message // to the writer
	inbox     *inbox
	missed    chan struct{} // has an entry while commands have to be sent again once the store is available
	cancel    context.CancelFunc
	ended     <-chan struct{} // closed when the session ends
	answers   chan string     // commands whose withdrawals the node has answered; nobody has to read it
	caps      []string        // of the last health beat; only storeAll uses it
	report    [4]string       // version, health, trial and manifest of the last health beat; only storeAll uses it
	beats     int             // health beats so far; only storeAll uses it
	progress  wire.Progress   // of the last health beat that had one; only storeAll uses it
	withdraws bool            // the node announced that it obeys withdrawals
	reported  atomic.Bool     // a health beat is stored
	offers    atomic.Bool     // upgrades, by its last health beat
	waiting   atomic.Bool     // a command was not sent, maybe because the node does not offer upgrades
	blocked   atomic.Bool     // a command was not sent, because a record cannot be read
	probe     bool            // it is no session, and nothing about the node changes

	replaced  atomic.Bool  // another connection of the node took its place
	lastFrame atomic.Int64 // Unix time in seconds of the node's last frame

	serial   uint64   // of the session, among all of the Hub
	evidence evidence // guarded by duplicates.mu
}

func newSession(ctx context.Context, h *Hub, conn *websocket.Conn, remote string, cancel context.CancelFunc) *session {
	s := &session{socket: socket{conn}, hub: h, source: limit.SourceOf(remote), queue: make(chan wire.Message, queueLen), inbox: newInbox(&h.inboxes),
		missed: make(chan struct{}, 1), answers: make(chan string, queueLen), cancel: cancel, ended: ctx.Done(), serial: h.serial.Add(1)}
	s.address, _, _ = net.SplitHostPort(remote)
	return s
}

// run authenticates the node and serves it until the connection or ctx ends.
func (s *session) run(ctx context.Context) error {
	h := s.hub
	defer h.presence.disconnect(ctx, s)
	auth, err := s.authenticate(ctx)
	if err != nil {
		if r := (*refusal)(nil); errors.As(err, &r) {
			s.refuse(r)
		} else if f := (*storeError)(nil); errors.As(err, &f) {
			endTrouble(s, f.error)
		}
		return err
	}
	if s.probe {
		return h.probes.serve(ctx, s)
	}
	h.NodeChanged(s.nodeID)
	h.Log.Info().Str("node_id", s.nodeID).Str("version", auth.SoftwareVersion).Msg("node authenticated")
	h.Publish(api.NodeRecord{Type: api.RecordAuthenticated, Time: time.Now().UTC(), NodeID: s.nodeID, Version: auth.SoftwareVersion})

	defer startWriter(ctx, s)()
	if h.ending.Load() {
		s.socket.close(websocket.CloseInternalServerErr, "sessions cannot be served now")
		return errEnding
	}
	// A session that is replaced meanwhile still waits for the answer to its close frame.
	if err := s.resend(ctx); err != nil && !s.replaced.Load() {
		if !passes(h, err) {
			endDefect(s, err)
			return err
		}
		sendMissed(s)
	}
	stored := startStoring(ctx, s)
	err = s.readAll(ctx)
	stored()
	if s.replaced.Load() && websocket.IsCloseError(err, wire.CloseReplaced) {
		h.answeredReplaced(s)
	}
	h.presence.disconnect(ctx, s) // before the connection closes: a node that waits for that finds its end recorded
	return err
}

// sendMissed has the writer of s send what the node has not acknowledged.
func sendMissed(s *session) {
	select {
	case s.missed <- struct{}{}:
	default: // it is about to
	}
}

// send queues m. A node that reads too slowly is disconnected; it gets what it missed
// when it reconnects.
func (s *session) send(m wire.Message) {
	select {
	case s.queue <- m:
	default:
		s.cancel()
	}
}

// startWriter starts the writers of s, and returns a function that ends them.
func startWriter(ctx context.Context, s *session) (stop func()) {
	var writers sync.WaitGroup
	for _, write := range []func(context.Context){s.writeAll, func(ctx context.Context) { pingAll(ctx, s) }} {
		writers.Go(func() {
			write(ctx)
			s.cancel() // which ends the reader
		})
	}
	return func() { s.cancel(); writers.Wait() }
}

func (s *session) writeAll(ctx context.Context) {
	var back <-chan struct{} // nil: no command was left out
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-s.missed:
			back = s.hub.Store.Back()
		case <-back:
			back = nil
			if err := s.resend(ctx); passes(s.hub, err) {
				back = again(s.hub)
			} else if err != nil {
				endDefect(s, err)
				return
			}
		case m := <-s.queue:
			if c, ok := m.(*wire.Command); ok {
				// Before it is sent, and even if the session is ending: a command that may have
				// arrived is never taken for one that was not sent.
				err := recordSent(ctx, s, c)
				if errors.Is(err, store.ErrNotSendable) { // withdrawn, or held, since it was queued; or upgrades are not offered
					s.hub.Log.Info().Str("node_id", s.nodeID).Str("command_id", c.CommandID).Msg("command not sent: it was withdrawn or held, or the node does not offer upgrades now")
					continue
				}
				if passes(s.hub, err) {
					back = again(s.hub)
					continue
				}
				if err != nil {
					endDefect(s, err)
					return
				}
				s.hub.Metrics.CommandSent()
			}
			err = s.socket.write(m)
		}
		if err != nil {
			return
		}
	}
}

// pingAll pings the node, whatever the reader and the writer wait for. The unasked pong is
// for a node whose own pings the reader has not reached.
func pingAll(ctx context.Context, s *session) {
	ping := time.NewTicker(wire.HealthInterval)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ping.C:
		}
		for _, kind := range []int{websocket.PingMessage, websocket.PongMessage} {
			if err := s.socket.conn.WriteControl(kind, nil, time.Now().Add(writeTimeout)); err != nil {
				return
			}
		}
	}
}

func (s *session) readAll(ctx context.Context) error {
	alive := func() {
		if s.replaced.Load() {
			return
		}
		s.lastFrame.Store(time.Now().Unix())
		s.socket.conn.SetReadDeadline(time.Now().Add(wire.ReadTimeout))
	}
	alive()
	messages, bytes := rate.NewLimiter(messageRate, messageBurst), rate.NewLimiter(byteRate, byteBurst)
	answer := s.socket.conn.PingHandler()
	s.socket.conn.SetPingHandler(func(data string) error { alive(); return answer(data) })
	s.socket.conn.SetPongHandler(func(string) error { alive(); return nil })
	for {
		_, b, err := s.socket.conn.ReadMessage()
		if err != nil {
			return err
		}
		if s.replaced.Load() {
			continue // the session that took its place receives what counts
		}
		alive()
		if err := errors.Join(messages.Wait(ctx), bytes.WaitN(ctx, len(b))); err != nil && !s.replaced.Load() {
			return err
		}
		env, err := wire.Decode(b)
		if err != nil {
			s.hub.Log.Debug().Str("node_id", s.nodeID).Err(err).Msg("message ignored")
			continue
		}
		if s.probe {
			answerProbe(s, env)
			continue
		}
		if err := s.inbox.put(ctx, arrival{env, time.Now(), len(b)}); err != nil {
			return err
		}
		alive() // it may have waited for room
	}
}
