package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// node is one node. Only the goroutine of run uses its fields, except started.
type node struct {
	c                 Config
	index             int
	id, secret        string
	traits            Traits
	step              time.Duration
	version, previous release.Version
	commands          map[string]*wire.CommandAck // by id; nil: not ended yet
	outbox            []wire.Message              // not sent, or not acknowledged yet
	sent              int                         // number of messages of outbox sent in this session
	next              func()                      // the next step of an upgrade
	restart           bool                        // end the session; another version connects
	unproven          string                      // the command of the running version, if that is unproven
	unprovenSince     time.Time
	started           atomic.Int64 // upgrades
}

// restore continues with a saved state.
func (n *node) restore(s Saved) {
	n.id, n.secret = s.ID, s.Secret
	if v, err := release.ParseVersion(s.Version); err == nil {
		n.version, n.previous = v, v
	}
	if v, err := release.ParseVersion(s.Previous); err == nil {
		n.previous = v
	}
}

// save passes on the state of the node.
func (n *node) save() {
	if n.c.Save != nil {
		n.c.Save(n.index, Saved{n.id, n.secret, n.version.String(), n.previous.String()})
	}
}

// pause waits for about d.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d/2 + rand.N(d)):
	}
}

// refusedSteps is the number of steps that a node waits after a refusal.
const refusedSteps = 10

func (n *node) run(ctx context.Context) {
	online := time.Now()
	for ctx.Err() == nil {
		session, cancel := ctx, context.CancelFunc(func() {})
		if n.traits.Offline {
			session, cancel = context.WithDeadline(ctx, online.Add(offlineSteps*n.c.Step))
		}
		err := n.session(session) // the node reconnects after any end
		if session.Err() != nil && ctx.Err() == nil {
			pause(ctx, offlineSteps*n.c.Step)
			online = time.Now()
		}
		cancel()
		if errors.Is(err, errRefused) || websocket.IsCloseError(err, wire.CloseTryLater) {
			pause(ctx, refusedSteps*n.c.Step)
		}
		pause(ctx, n.c.Step)
	}
}

var errRefused = errors.New("refused")

func (n *node) session(ctx context.Context) error {
	d := websocket.Dialer{TLSClientConfig: n.c.TLS, HandshakeTimeout: 10 * time.Second}
	conn, _, err := d.DialContext(ctx, n.c.URL, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	send := func(m wire.Message) error {
		b, err := wire.Encode(m, time.Now())
		if err != nil {
			return err
		}
		conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		return conn.WriteMessage(websocket.TextMessage, b)
	}
	auth := &wire.Auth{NodeID: n.id, NodeSecret: n.secret, SoftwareVersion: n.version.String(), DeviceType: n.c.DeviceType, ProtocolVersion: wire.ProtocolVersion, Actions: n.c.Actions}
	if n.id == "" {
		auth.RegistrationToken = n.c.Token
	}
	if err := send(auth); err != nil {
		return err
	}
	messages := make(chan wire.Message)
	ended := make(chan struct{})
	defer close(ended)
	readErr := make(chan error, 1)
	go func() {
		for {
			_, b, err := conn.ReadMessage()
			if err != nil {
				readErr <- err
				return
			}
			env, err := wire.Decode(b)
			if err != nil {
				continue // ignored, as the protocol requires
			}
			select {
			case messages <- env.Message:
			case <-ended:
				return
			}
		}
	}()
	n.sent, n.restart = 0, false
	beat := time.NewTicker(wire.HealthInterval)
	defer beat.Stop()
	authenticated := false
	var step <-chan time.Time
	for {
		if authenticated {
			for n.sent < len(n.outbox) {
				if err := send(n.outbox[n.sent]); err != nil {
					return err
				}
				if _, ack := n.outbox[n.sent].(*wire.CommandAck); ack {
					n.outbox = append(n.outbox[:n.sent:n.sent], n.outbox[n.sent+1:]...)
				} else {
					n.sent++
				}
			}
			if n.restart {
				return closeSession(conn, messages, readErr)
			}
			if step == nil && n.next != nil {
				step = time.After(n.step/2 + rand.N(n.step))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-readErr:
			return err
		case <-beat.C:
			if err := send(n.health()); err != nil {
				return err
			}
		case <-step:
			do := n.next
			step, n.next = nil, nil
			do()
		case m := <-messages:
			switch m := m.(type) {
			case *wire.RegisterAck:
				n.id, n.secret, authenticated = m.NodeID, m.NodeSecret, true
				n.save()
				if err := send(n.health()); err != nil {
					return err
				}
			case *wire.AuthOK:
				authenticated = true
				if err := send(n.health()); err != nil {
					return err
				}
			case *wire.AuthError:
				return fmt.Errorf("%w: %.100q", errRefused, m.Message)
			case *wire.Ping:
				if err := send(&wire.Pong{}); err != nil {
					return err
				}
			case *wire.EventAck:
				n.dropEvents(m.EventIDs)
			case *wire.Command:
				n.command(m)
			}
		}
	}
}

func (n *node) health() *wire.Health {
	status := "ok"
	if n.traits.Degraded {
		status = "degraded"
	}
	h := &wire.Health{Status: status, Version: n.version.String(), Capabilities: []string{wire.CapabilityUpgrade},
		Upgrade: &wire.Upgrade{Status: "stable", CurrentVersion: n.version.String(), PreviousVersion: n.previous.String(), Channels: []string{release.DefaultChannel}}}
	if n.unproven != "" {
		h.Upgrade.Status, h.Trial = wire.StatusPendingHealth, wire.TrialUnproven
		h.Hold = &wire.Hold{Reason: "a session with the manager that lasts 10s (simulated)", Since: n.unprovenSince}
	}
	return h
}

// dropEvents removes acknowledged events from the outbox.
func (n *node) dropEvents(ids []string) {
	for _, id := range ids {
		for i, m := range n.outbox {
			if e, ok := m.(*wire.Event); ok && e.EventID == id {
				n.outbox = append(n.outbox[:i:i], n.outbox[i+1:]...)
				if i < n.sent {
					n.sent--
				}
				break
			}
		}
	}
}

// report adds an event to the outbox.
func (n *node) report(command string, code release.Code, from, to release.Version, text string) {
	n.outbox = append(n.outbox, &wire.Event{
		EventID: command + "-" + string(code), Severity: code.Severity(), Category: wire.CategoryUpgrade, Message: text,
		Details: wire.Details{ErrorCode: code, FromVersion: from.String(), ToVersion: to.String(), CommandID: command},
	})
}

// command starts an upgrade, which next then runs step by step.
func (n *node) command(c *wire.Command) {
	if ack, known := n.commands[c.CommandID]; known {
		if ack != nil {
			n.outbox = append(n.outbox, ack)
		}
		return
	}
	if slices.Contains(n.c.Actions, c.Action.Type) {
		ack := n.c.Act(n.index, c)
		ack.CommandID = c.CommandID
		n.finish(&ack)
		return
	}
	to, err := release.ParseVersion(c.Action.Version)
	if c.Action.Type != wire.ActionUpgrade || err != nil {
		n.finish(&wire.CommandAck{CommandID: c.CommandID, Error: "this node supports only upgrades", ErrorCode: wire.UnknownAction})
		return
	}
	from, id := n.version, c.CommandID
	if n.next != nil {
		n.finish(&wire.CommandAck{CommandID: id, Error: "an upgrade is in progress", ErrorCode: release.InProgress})
		return
	}
	ok := &wire.CommandAck{CommandID: id, Success: true, Data: &wire.AckData{Status: "staged", FromVersion: from.String(), ToVersion: to.String(), Channel: c.Action.Channel}}
	if from == to {
		ok.Data.Status = "current"
		n.finish(ok)
		return
	}
	n.started.Add(1)
	n.commands[id] = nil
	n.report(id, release.Started, from, to, "fetching and checking "+to.String())
	outcome := n.c.Outcome(n.index, to.String())
	if outcome == NeverEnds {
		return
	}
	n.next = func() {
		if outcome == Refused {
			n.report(id, release.ChecksumMismatch, from, to, "the tarball has another SHA-256 (simulated)")
			n.finish(&wire.CommandAck{CommandID: id, Error: "the tarball has another SHA-256 (simulated)", ErrorCode: release.ChecksumMismatch})
			return
		}
		back := from
		if n.unproven != "" {
			back = n.previous
			n.report(n.unproven, release.Superseded, back, from, fmt.Sprintf("%s was unproven; %s takes its place", from, to))
			n.unproven = ""
		}
		n.report(id, release.Downloaded, from, to, to.String()+" is downloaded")
		n.report(id, release.Staged, from, to, to.String()+" is staged; restarting into it")
		n.finish(ok)
		n.restart, n.version, n.previous = true, to, back
		n.save()
		if outcome == Unproven {
			n.unproven, n.unprovenSince = id, time.Now()
			return
		}
		n.next = func() {
			if outcome == RollsBack {
				n.report(id, release.RolledBack, to, back, fmt.Sprintf("rolled back from %s to %s (simulated)", to, back))
				n.restart, n.version, n.previous = true, back, back
				n.save()
				return
			}
			n.report(id, release.Completed, from, to, to.String()+" is healthy")
		}
	}
}

// finish keeps and sends the answer to a command. The node sends it once; a manager that
// lost it repeats the command.
func (n *node) finish(ack *wire.CommandAck) {
	n.commands[ack.CommandID] = ack
	n.outbox = append(n.outbox, ack)
}

// closeSession closes a session, and returns when the manager has closed the connection,
// too: then the manager has recorded the end of the session.
func closeSession(conn *websocket.Conn, messages <-chan wire.Message, readErr <-chan error) error {
	const timeout = 10 * time.Second
	frame := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	if err := conn.WriteControl(websocket.CloseMessage, frame, time.Now().Add(timeout)); err != nil {
		return err
	}
	late := time.After(timeout)
	for {
		select {
		case <-messages: // the manager sent it before it read the close frame
		case <-readErr: // the manager's own close frame
			conn.NetConn().SetReadDeadline(time.Now().Add(timeout))
			io.Copy(io.Discard, conn.NetConn()) // the session is over, even after an error
			return nil
		case <-late:
			return errors.New("the manager did not close the session")
		}
	}
}
