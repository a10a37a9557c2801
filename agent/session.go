package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/trial"
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
}

// session dials, authenticates, and serves until the connection ends or ctx is done.
// It always returns an error: why it ended.
func (a *Agent) session(ctx context.Context, url string) error {
	d, err := a.c.dialer()
	if err != nil {
		return err
	}
	conn, err := dial(ctx, d, url)
	if err != nil {
		return err
	}
	a.tries.opened(conn.key())
	s := &session{a: a, conn: conn.Conn, sent: make(map[string]bool)}
	defer conn.Close()
	// A write or read that blocks must not outlive ctx.
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.authenticate(ctx); err != nil {
		return err
	}
	a.setAuthenticated(true)
	var hungUp atomic.Pointer[error] // by a trial; what the session began goes on
	a.tries.authenticated(func(why error) {
		hungUp.Store(&why)
		conn.Close()
	})
	a.setStatus(func(w *statusText) { w.manager = Connection{Connected: true, URL: url, Since: time.Now()}.String() })
	a.log.Info().Str("manager", url).Str("version", a.c.version.String()).Msg("authenticated to the manager")
	a.keepTrialCredentials(ctx, conn.key())
	a.recordManager(ctx, state.Manager{Key: conn.key(), Probe: conn.probes && slices.Contains(s.features, wire.FeatureProbe)})
	err = s.serve(ctx)
	if why := hungUp.Load(); why != nil {
		return *why
	}
	return err
}

func (s *session) send(m wire.Message) error { return s.sendAt(m, time.Now()) }

func (s *session) sendAt(m wire.Message, at time.Time) error { return sendTo(s.conn, m, at) }

func sendTo(conn *websocket.Conn, m wire.Message, at time.Time) error {
	b, err := wire.Encode(m, at)
	if err != nil {
		return err
	}
	conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return conn.WriteMessage(websocket.TextMessage, b)
}

func (s *session) authenticate(ctx context.Context) error {
	a := s.a
	cred, err := a.credentials(ctx)
	if err != nil {
		return err
	}
	auth := &wire.Auth{
		NodeID: cred.NodeID, NodeSecret: cred.NodeSecret,
		SoftwareVersion: a.c.version.String(), DeviceType: a.c.Host.DeviceType, ProtocolVersion: wire.ProtocolVersion,
		Features: []string{wire.FeatureWithdraw},
	}
	registers := cred.NodeID == ""
	if registers {
		auth.RegistrationToken = a.c.Manager.RegistrationToken
		if auth.RegistrationToken == "" {
			return errors.New("this node is not registered: set manager.registration_token in config.toml")
		}
		// The manager creates a node for a token. If the new credentials were then lost,
		// each attempt would create another node.
		if err := reserveCredentials(ctx, a.c.Layout); err != nil {
			return fmt.Errorf("not registering, because credentials.json could not be written: %w", err)
		}
	}
	if err := s.send(auth); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	s.conn.SetReadDeadline(time.Now().Add(limit(wire.AuthTimeout)))
	for {
		_, b, err := s.conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("authenticate: %w", readError(err))
		}
		env, err := wire.Decode(b)
		if err != nil {
			s.a.log.Debug().Err(err).Msg("message ignored")
			continue
		}
		switch m := env.Message.(type) {
		case *wire.AuthOK:
			s.features = m.Features
			return nil
		case *wire.RegisterAck:
			if !registers { // it would replace good credentials
				return &busyError{why: "the manager answers register_ack to a node that is registered; its credentials are kept"}
			}
			s.features = m.Features
			a.log.Info().Str("node_id", m.NodeID).Msg("registered")
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

// serve runs an authenticated session until it ends, and returns why.
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
	wake(s.a.healthDue)
	wake(s.a.outbox)
	for {
		s.a.expectLoop(wire.HealthInterval + handlerTimeout)
		var err error
		select {
		case <-ctx.Done():
			msg := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
			s.conn.WriteControl(websocket.CloseMessage, msg, time.Now().Add(time.Second))
			return ctx.Err()
		case err := <-readErr:
			return err
		case b := <-frames:
			err = s.handle(ctx, b)
		case <-beat.C:
			if err = s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout)); err == nil {
				err = s.health(ctx)
			}
		case <-s.a.healthDue:
			err = s.health(ctx)
		case <-s.a.outbox:
			err = s.deliver(ctx)
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
		s.a.log.Debug().Err(err).Msg("message ignored")
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
		s.a.log.Debug().Str("type", fmt.Sprintf("%T", m)).Msg("message ignored")
	}
	return nil
}

func (s *session) command(ctx context.Context, c *wire.Command) error {
	ack := &wire.CommandAck{CommandID: c.CommandID}
	switch c.Action.Type {
	case wire.ActionUpgrade:
		if ack = s.a.upgrade(ctx, c); ack == nil {
			return nil // the answer goes through the outbox
		}
	case wire.ActionWithdraw:
		ack = s.a.withdraw(ctx, c)
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
		h, ok := s.a.c.Handlers[c.Action.Type]
		if !ok {
			ack.Error, ack.ErrorCode = fmt.Sprintf("this node does not support the action %.64q", c.Action.Type), wire.UnknownAction
			break
		}
		hctx, cancel := context.WithTimeout(ctx, handlerTimeout)
		err := h(hctx, c.Action)
		cancel()
		if err != nil {
			_, why := codeAndText(err)
			ack.Error, ack.ErrorCode = why, wire.ActionFailed
			break
		}
		ack.Success = true
	}
	return s.send(ack)
}

// health sends a health message.
func (s *session) health(ctx context.Context) error {
	a := s.a
	h := &wire.Health{
		Status: "ok", Version: a.c.version.String(), UptimeSecs: int64(time.Since(a.startedAt).Seconds()),
		Capabilities: []string{}, Warnings: a.healthWarnings(),
	}
	if err := a.check(ctx); err != nil {
		h.Status = "degraded"
	}
	res, err := a.c.Layout.Read()
	var refused *release.Error
	if err != nil && !errors.As(err, &refused) {
		a.log.Debug().Err(err).Msg("health sent without the state of upgrades")
	}
	a.checkRoot(res, err)
	why := a.unavailable()
	switch {
	case !a.c.Upgrade.Enabled:
		h.UpgradeUnavailable = "upgrades are disabled: set enabled = true in [upgrade] of its config.toml, then restart the service"
	case why != nil:
		h.UpgradeUnavailable = release.Foreign(why.Error(), wire.MaxText/8)
	}
	if a.c.Upgrade.Enabled && why == nil {
		h.Capabilities = append(h.Capabilities, wire.CapabilityUpgrade)
		h.Upgrade = &wire.Upgrade{
			Status: string(res.State.Status), CurrentVersion: res.Tree.Current.String(),
			PreviousVersion: res.Tree.Previous.String(), TargetVersion: res.State.Target.String(),
			BootAttempts: res.State.BootAttempts, Channels: a.c.Upgrade.AllowedChannels,
			Progress: a.progress.Load(),
		}
	}
	h.Trial, h.Hold = a.trialOf(res.State)
	h.Hold = a.holdOf(h.Hold)
	return s.send(h)
}

// trialOf returns what health says of the version on trial in s.
func (a *Agent) trialOf(s state.State) (string, *wire.Hold) {
	if s.Status != state.PendingHealth {
		return "", nil
	}
	stage := a.c.Layout.Reached(s)
	if stage != state.Unproven {
		return string(stage), nil
	}
	r := a.c.Layout.ReadJudge(s)
	reason := r.Waits
	if r.Rounds > 0 {
		reason = fmt.Sprintf("(contradicted in %d of %d rounds) %s", r.Rounds, trial.Default.Rounds, reason)
	}
	return string(stage), &wire.Hold{Reason: release.Foreign(reason, wire.MaxText/8), Since: r.Since}
}

// deliver sends the entries of the outbox that this session has not sent, oldest
// first, without those that are watched. An event stays there until the manager
// acknowledges it, if it does that; other entries until they are written to the
// connection. What is only in memory is sent even if it is watched: nobody could amend it.
func (s *session) deliver(ctx context.Context) error {
	box := s.a.c.Layout.Outbox()
	entries, bad, err := box.ListExcept(func(id string) bool { return s.sent[id] })
	if err != nil {
		s.a.log.Error().Err(err).Msg("the outbox cannot be read; trying again")
	}
	for _, b := range bad {
		s.a.log.Error().Err(b).AnErr("set_aside", box.SetAside(ctx, b)).Msg("a file of the outbox is damaged; kept as .corrupt")
	}
	entries = slices.DeleteFunc(entries, state.Entry.Watched)
	var delivered []string
	for _, e := range append(entries, s.a.eventsInMemory()...) {
		if s.sent[e.ID] {
			continue
		}
		var m wire.Message
		if e.Event != nil {
			m = event(e)
		} else {
			m = s.a.ack(*e.Ack)
		}
		if err := s.sendAt(m, e.Time); err != nil {
			return err
		}
		s.sent[e.ID] = true
		if e.Event == nil || !slices.Contains(s.features, wire.FeatureEventAck) {
			delivered = append(delivered, e.ID)
		}
	}
	s.forget(delivered...)
	return nil
}

// forget removes entries that the manager has.
func (s *session) forget(ids ...string) {
	if len(ids) == 0 {
		return
	}
	s.a.dropFromMemory(ids)
	if err := s.a.c.Layout.Outbox().Remove(ids...); err != nil {
		s.a.log.Error().Err(err).Msg("delivered entries were not removed from the outbox; they will be sent again")
	}
}
