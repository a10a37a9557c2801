package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// node is one node. All but obeyed belongs to the goroutine of run.
type node struct {
	c                 Config
	index             int
	id, secret        string
	traits            Traits
	step              time.Duration
	version, previous release.Version
	commands          map[string]*wire.CommandAck // by id; nil: not ended yet
	outbox            []wire.Message              // not acknowledged yet, or not sent
	sent              int                         // of outbox, in this session
	next              func()                      // the next step of an upgrade
	restart           bool                        // the session ends, and another version connects
	obeyed            atomic.Int64
}

// restore takes over what the node kept.
func (n *node) restore(k Kept) {
	n.id, n.secret = k.ID, k.Secret
	if v, err := release.ParseVersion(k.Version); err == nil {
		n.version, n.previous = v, v
	}
	if v, err := release.ParseVersion(k.Previous); err == nil {
		n.previous = v
	}
}

// changed reports what the node must keep.
func (n *node) changed() {
	if n.c.Changed != nil {
		n.c.Changed(n.index, Kept{n.id, n.secret, n.version.String(), n.previous.String()})
	}
}

// pause waits for about d.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d/2 + rand.N(d)):
	}
}

// refusedSteps is how many steps a node waits whose credentials were refused.
const refusedSteps = 10

func (n *node) run(ctx context.Context) {
	online := time.Now()
	for ctx.Err() == nil {
		session, cancel := ctx, context.CancelFunc(func() {})
		if n.traits.Away {
			session, cancel = context.WithDeadline(ctx, online.Add(awaySteps*n.c.Step))
		}
		err := n.session(session) // however it ends, the node connects again
		if session.Err() != nil && ctx.Err() == nil {
			pause(ctx, awaySteps*n.c.Step)
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
	auth := &wire.Auth{NodeID: n.id, NodeSecret: n.secret, SoftwareVersion: n.version.String(), DeviceType: n.c.DeviceType, ProtocolVersion: wire.ProtocolVersion}
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
				continue // not known: ignored, as the protocol asks
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
				return goodbye(conn, messages, readErr)
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
				n.changed()
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
				n.acknowledged(m.EventIDs)
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
	return &wire.Health{Status: status, Version: n.version.String(), Capabilities: []string{wire.CapabilityUpgrade},
		Upgrade: &wire.Upgrade{Status: "stable", CurrentVersion: n.version.String(), PreviousVersion: n.previous.String(), Channels: []string{release.DefaultChannel}}}
}

func (n *node) acknowledged(ids []string) {
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

// tell puts an event in the outbox.
func (n *node) tell(command string, code release.Code, from, to release.Version, text string) {
	n.outbox = append(n.outbox, &wire.Event{
		EventID: command + "-" + string(code), Severity: code.Severity(), Category: wire.CategoryUpgrade, Message: text,
		Details: wire.Details{ErrorCode: code, FromVersion: from.String(), ToVersion: to.String(), CommandID: command},
	})
}

// command obeys an upgrade, step by step.
func (n *node) command(c *wire.Command) {
	if ack, known := n.commands[c.CommandID]; known {
		if ack != nil {
			n.outbox = append(n.outbox, ack)
		}
		return
	}
	to, err := release.ParseVersion(c.Action.Version)
	if c.Action.Type != wire.ActionUpgrade || err != nil {
		n.end(&wire.CommandAck{CommandID: c.CommandID, Error: "this node knows upgrades alone", ErrorCode: wire.UnknownAction})
		return
	}
	from, id := n.version, c.CommandID
	if n.next != nil {
		n.end(&wire.CommandAck{CommandID: id, Error: "an upgrade is in progress", ErrorCode: release.InProgress})
		return
	}
	ok := &wire.CommandAck{CommandID: id, Success: true, Data: &wire.AckData{Status: "staged", FromVersion: from.String(), ToVersion: to.String(), Channel: c.Action.Channel}}
	if from == to {
		ok.Data.Status = "current"
		n.end(ok)
		return
	}
	n.obeyed.Add(1)
	n.commands[id] = nil
	n.tell(id, release.Started, from, to, "fetching and checking "+to.String())
	fate := n.c.Fate(n.index, to.String())
	if fate == NeverEnds {
		return
	}
	n.next = func() {
		if fate == Refused {
			n.tell(id, release.ChecksumMismatch, from, to, "the tarball has another SHA-256 (simulated)")
			n.end(&wire.CommandAck{CommandID: id, Error: "the tarball has another SHA-256 (simulated)", ErrorCode: release.ChecksumMismatch})
			return
		}
		n.tell(id, release.Downloaded, from, to, to.String()+" is downloaded")
		n.tell(id, release.Staged, from, to, to.String()+" is staged; restarting into it")
		n.end(ok)
		n.restart, n.version, n.previous = true, to, from
		n.changed()
		n.next = func() {
			if fate == GoesBack {
				n.tell(id, release.RolledBack, to, from, fmt.Sprintf("rolled back from %s to %s (simulated)", to, from))
				n.restart, n.version, n.previous = true, from, from
				n.changed()
				return
			}
			n.tell(id, release.Completed, from, to, to.String()+" is healthy")
		}
	}
}

// end keeps a command's outcome and sends it. An ack is sent once; a manager
// that lost it asks again by repeating the command.
func (n *node) end(ack *wire.CommandAck) {
	n.commands[ack.CommandID] = ack
	n.outbox = append(n.outbox, ack)
}

// goodbye closes a session in good order, and returns when the manager has closed
// the connection, too: it then knows that the node went.
func goodbye(conn *websocket.Conn, messages <-chan wire.Message, readErr <-chan error) error {
	const patience = 10 * time.Second
	frame := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	if err := conn.WriteControl(websocket.CloseMessage, frame, time.Now().Add(patience)); err != nil {
		return err
	}
	late := time.After(patience)
	for {
		select {
		case <-messages: // sent before the manager read the frame
		case <-readErr: // the manager's own close frame
			conn.NetConn().SetReadDeadline(time.Now().Add(patience))
			io.Copy(io.Discard, conn.NetConn()) // however it ends, the session is over
			return nil
		case <-late:
			return errors.New("the manager does not close the session")
		}
	}
}
