package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

// session is one connection to the manager. Its fields belong to the goroutine of
// Agent.session, which alone writes to the connection.
type session struct {
	a        *Agent
	conn     *websocket.Conn
	features []string        // of the manager
	sent     map[string]bool // entries of the outbox that this session delivered

	disk, checks             *jobs // what reads and writes the install root; health messages
	delivering, deliverAgain bool  // a job lists the outbox, and another one must
}

// session dials, authenticates, and serves until the connection ends or ctx is done.
// It always returns an error: why it ended.
func (a *Agent) session(ctx context.Context, url string) error {
	a.expectNothing() // the disk may be slow
	auth, err := a.auth(ctx)
	if err != nil {
		return err
	}
	d, err := a.c.dialer()
	if err != nil {
		return err
	}
	a.offer(url, d)
	a.expectLoop(dialTimeout + writeTimeout + silentTimeout)
	began := time.Now()
	conn, err := dial(ctx, d, url)
	connected := time.Now()
	a.noteOffer(url, err)
	if err != nil {
		return a.c.explainClock(err)
	}
	a.tries.opened(conn.key())
	s := &session{a: a, conn: conn.Conn, sent: make(map[string]bool), disk: newJobs(), checks: newJobs()}
	defer conn.Close()
	// A write or read that blocks must not outlive ctx.
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.authenticate(ctx, auth); err != nil {
		return err
	}
	a.setAuthenticated(true)
	var hungUp atomic.Pointer[error] // by a trial; what the session began goes on
	a.tries.authenticated(func(why error) {
		hungUp.Store(&why)
		conn.Close()
	})
	a.setConnection(Connection{Connected: true, URL: url, Since: time.Now()})
	a.log.Info("authenticated to the manager", "manager", url, "version", a.c.version.String(), "connect_ms", connected.Sub(began).Milliseconds(), "auth_ms", time.Since(connected).Milliseconds())
	select { // the first health message comes when the manager is recorded
	case <-a.healthDue:
	default:
	}
	m := state.Manager{Key: conn.key(), Probe: conn.probes && slices.Contains(s.features, wire.FeatureProbe)}
	s.disk.add(func() func() error {
		a.keepTrialCredentials(ctx, m.Key)
		a.recordManager(ctx, m)
		return func() error {
			wake(a.healthDue) // from here the manager may send commands
			return nil
		}
	})
	err = s.serve(ctx)
	if why := hungUp.Load(); why != nil {
		return *why
	}
	return err
}

func (s *session) send(m wire.Message) error { return s.sendAt(m, time.Now()) }

func (s *session) sendAt(m wire.Message, at time.Time) error {
	return sendTo(s.conn, m, at, func() { s.a.expectLoop(writeTimeout) })
}

// sendTo sends a message. It fails if a piece of it is not written within writeTimeout; before
// each piece it calls next, so that a long message on a slow link counts as progress.
func sendTo(conn *websocket.Conn, m wire.Message, at time.Time, next func()) error {
	b, err := wire.Encode(m, at)
	if err != nil {
		return err
	}
	w, err := conn.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	begin := func() {
		next()
		conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	for piece := range slices.Chunk(b, writeChunk) {
		begin()
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	begin()
	return w.Close() // writes what is left
}

// auth returns the first message of a session. It makes room for the credentials that a
// registration brings.
func (a *Agent) auth(ctx context.Context) (*wire.Auth, error) {
	cred, err := a.credentials(ctx)
	if err != nil {
		return nil, err
	}
	auth := &wire.Auth{
		NodeID: cred.NodeID, NodeSecret: cred.NodeSecret,
		SoftwareVersion: a.c.version.String(), DeviceType: a.c.Host.DeviceType, ProtocolVersion: wire.ProtocolVersion,
		Features: []string{wire.FeatureWithdraw}, ManifestSHA256: stage.ManifestOf(a.c.Layout, a.c.version),
		Actions: a.actionNames(),
	}
	if cred.NodeID != "" {
		return auth, nil
	}
	auth.RegistrationToken = a.c.Manager.RegistrationToken.Reveal()
	if auth.RegistrationToken == "" {
		return nil, errors.New("this node is not registered: set manager.registration_token in config.toml")
	}
	// The manager creates a node for a token. If the new credentials were then lost,
	// each attempt would create another node.
	if err := reserveCredentials(ctx, a.c.Layout); err != nil {
		return nil, fmt.Errorf("not registering, because credentials.json could not be written: %w", err)
	}
	return auth, nil
}

func (s *session) authenticate(ctx context.Context, auth *wire.Auth) error {
	a := s.a
	if err := s.send(auth); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	s.conn.SetReadDeadline(time.Now().Add(limit(silentTimeout)))
	for {
		_, b, err := s.conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("authenticate: %w", readError(err))
		}
		env, err := wire.Decode(b)
		if err != nil {
			s.a.log.Debug("message ignored", "error", err)
			continue
		}
		switch m := env.Message.(type) {
		case *wire.AuthOK:
			s.features = m.Features
			return nil
		case *wire.RegisterAck:
			if auth.NodeID != "" { // it would replace good credentials
				return &busyError{why: "the manager answers register_ack to a node that is registered; its credentials are kept"}
			}
			s.features = m.Features
			a.log.Info("registered", "node_id", m.NodeID)
			a.expectNothing()
			return a.keepCredentials(ctx, credentials{m.NodeID, m.NodeSecret})
		case *wire.AuthError:
			return refusal(s.conn, m.Message)
		}
	}
}

// Limits of the messages that a session accepts, a second and at once. A manager that
// sends more has to wait.
const (
	messageRate  = 100
	messageBurst = 300
)

// heldPing is in the ping that a session sends once it has lasted for heldFor. Only the answer to
// it proves the link: whatever else arrives may have been sent before.
const heldPing = "held"

// maxJobs is how many jobs may wait for the disk before the session reads no more frames.
const maxJobs = 64

// serve runs an authenticated session until it ends, and returns why. Its loop itself does
// nothing that waits for the disk.
func (s *session) serve(ctx context.Context) error {
	alive := func() { s.conn.SetReadDeadline(time.Now().Add(wire.ReadTimeout)) }
	alive()
	ping := time.AfterFunc(pace(heldFor), func() { // its answer shows that the connection was held
		s.conn.WriteControl(websocket.PingMessage, []byte(heldPing), time.Now().Add(writeTimeout))
	})
	defer ping.Stop()
	answer := s.conn.PingHandler()
	s.conn.SetPingHandler(func(data string) error { alive(); return answer(data) })
	s.conn.SetPongHandler(func(data string) error {
		alive()
		if data == heldPing {
			s.a.tries.heard()
		}
		return nil
	})

	messages := rate.NewLimiter(messageRate, messageBurst)
	frames := make(chan []byte)
	readErr := make(chan error, 1)
	ended := make(chan struct{})
	checking, stopChecking := context.WithCancel(ctx)
	defer func() { // jobs that wait are lost, as if the session had ended before
		stopChecking()
		s.a.expectNothing()
		s.checks.wait()
		s.disk.wait()
	}()
	defer func() { s.conn.Close(); <-readErr }() // the reader ends with the connection
	defer close(ended)
	go func() {
		for {
			kind, b, err := s.conn.ReadMessage()
			if err == nil {
				err = messages.Wait(ctx) // before it costs more than its bytes did
			}
			if err != nil {
				readErr <- readError(err)
				close(readErr)
				return
			}
			if ctx.Err() == nil {
				alive()
			}
			if kind != websocket.TextMessage {
				continue
			}
			select {
			case frames <- b:
			case <-ended:
			}
		}
	}()

	beat := time.NewTicker(wire.HealthInterval)
	defer beat.Stop()
	wake(s.a.outbox)
	var answers chan struct{} // nil: the program has no handlers
	if s.a.commands != nil {
		answers = s.a.commands.due()
		wake(answers)
	}
	for {
		s.a.expectLoop(wire.HealthInterval + handlerTimeout)
		in := frames
		if len(s.disk.queue) >= maxJobs {
			in = nil
		}
		var err error
		select {
		case <-ctx.Done():
			msg := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
			s.conn.WriteControl(websocket.CloseMessage, msg, time.Now().Add(time.Second))
			return ctx.Err()
		case err := <-readErr:
			return err
		case b := <-in:
			err = s.handle(ctx, b)
		case <-beat.C:
			if err = s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout)); err == nil {
				s.askHealth(checking)
			}
		case <-s.a.healthDue:
			s.askHealth(checking)
		case <-answers:
			err = s.a.commands.answer(func(ack *wire.CommandAck) error { return s.send(ack) })
		case <-s.a.outbox:
			s.askDelivery(ctx)
		case then := <-s.disk.done:
			err = s.disk.finish(then)
		case then := <-s.checks.done:
			err = s.checks.finish(then)
		}
		if err != nil {
			return err
		}
	}
}

// handle serves one frame. It returns an error only if the connection is broken.
func (s *session) handle(ctx context.Context, b []byte) error {
	env, err := wire.Decode(b)
	if err != nil {
		s.a.log.Debug("message ignored", "error", err)
		return nil
	}
	switch m := env.Message.(type) {
	case *wire.Ping:
		return s.send(&wire.Pong{})
	case *wire.EventAck:
		s.forget(m.EventIDs...)
	case *wire.Command:
		return s.command(ctx, m)
	case *wire.AuthError:
		return fmt.Errorf("the manager ends the session: %q", release.Foreign(m.Message, release.ForeignLimit))
	default:
		s.a.log.Debug("message ignored", "type", fmt.Sprintf("%T", m))
	}
	return nil
}

// actionNames returns the names of the author's actions, sorted; nil if there are none.
func (a *Agent) actionNames() []string {
	if a.commands == nil {
		return nil
	}
	return a.commands.names()
}

func (s *session) command(ctx context.Context, c *wire.Command) error {
	ack := &wire.CommandAck{CommandID: c.CommandID}
	switch c.Action.Type {
	case wire.ActionUpgrade:
		s.disk.add(func() func() error {
			ack := s.a.upgrade(ctx, c)
			if ack == nil {
				return nil // the answer goes through the outbox
			}
			return func() error { return s.send(ack) }
		})
		return nil
	case wire.ActionWithdraw:
		s.disk.add(func() func() error {
			ack := s.a.withdraw(ctx, c)
			return func() error { return s.send(ack) }
		})
		return nil
	case wire.ActionGetConfig:
		b, err := json.Marshal(s.a.c.Config)
		if err != nil {
			return err
		}
		if err := s.send(&wire.ConfigResponse{CommandID: c.CommandID, Config: b}); err != nil {
			return err
		}
		ack.Success = true
	default:
		if slices.Contains(s.a.actionNames(), c.Action.Type) {
			s.disk.add(func() func() error {
				ack := s.a.commands.accept(c)
				if ack == nil {
					return nil // it comes with answer
				}
				return func() error { return s.send(ack) }
			})
			return nil
		}
		ack.Error, ack.ErrorCode = fmt.Sprintf("this node does not support the action %.64q", c.Action.Type), wire.UnknownAction
	}
	return s.send(ack)
}
