// Package fleet is many simulated nodes in one process: each holds a WebSocket
// to a manager and behaves as an agent does, as far as a manager can see. They
// install nothing. What a node has to tell it tells until it is acknowledged,
// and a command that is repeated it answers once more and does not obey twice.
package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// Fate is what becomes of an upgrade on a node.
type Fate string

// The fates.
const (
	Good      Fate = ""
	Refused   Fate = "refused"     // staging fails: a bad checksum
	GoesBack  Fate = "rolled-back" // it does not come up healthy
	NeverEnds Fate = "never-ends"  // started, and not a word more
)

// Config says what the nodes are like. URL and Token are required.
type Config struct {
	URL        string // wss://HOST:PORT/ws/node
	Token      string // registration token
	TLS        *tls.Config
	Nodes      int
	Version    string // that they run at first; default 1.0.0
	DeviceType string // default "edge"
	// Fate of an upgrade; nil means that all are good.
	Fate func(node int, version string) Fate
	// Step is how long each step of an upgrade takes, and the pause before a
	// node comes back, each with jitter; default 200 ms.
	Step time.Duration
}

// Fleet runs until its context is done.
type Fleet struct {
	nodes []*node
	wg    sync.WaitGroup
}

// Start starts the nodes. Wait for them with Wait once ctx is done.
func Start(ctx context.Context, c Config) (*Fleet, error) {
	if c.Version == "" {
		c.Version = "1.0.0"
	}
	if c.DeviceType == "" {
		c.DeviceType = "edge"
	}
	if c.Step == 0 {
		c.Step = 200 * time.Millisecond
	}
	if c.Fate == nil {
		c.Fate = func(int, string) Fate { return Good }
	}
	v, err := release.ParseVersion(c.Version)
	if err != nil {
		return nil, err
	}
	f := &Fleet{}
	for i := range c.Nodes {
		n := &node{c: c, index: i, version: v, previous: v, commands: map[string]*wire.CommandAck{}}
		f.nodes = append(f.nodes, n)
		f.wg.Go(func() { n.run(ctx) })
	}
	return f, nil
}

// Wait returns when all nodes have stopped.
func (f *Fleet) Wait() { f.wg.Wait() }

// Obeyed returns how many upgrades each node has begun.
func (f *Fleet) Obeyed() []int {
	out := make([]int, len(f.nodes))
	for i, n := range f.nodes {
		out[i] = int(n.obeyed.Load())
	}
	return out
}

// node is one node. All but obeyed belongs to the goroutine of run.
type node struct {
	c                 Config
	index             int
	id, secret        string
	version, previous release.Version
	commands          map[string]*wire.CommandAck // by id; nil: not ended yet
	outbox            []wire.Message              // not acknowledged yet, or not sent
	sent              int                         // of outbox, in this session
	next              func()                      // the next step of an upgrade
	restart           bool                        // the session ends, and another version comes back
	obeyed            atomic.Int64
}

// pause waits for about Step.
func (n *node) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(n.c.Step/2 + rand.N(n.c.Step)):
	}
}

func (n *node) run(ctx context.Context) {
	for ctx.Err() == nil {
		n.session(ctx) // however it ends, the node comes back
		n.pause(ctx)
	}
}

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
				step = time.After(n.c.Step/2 + rand.N(n.c.Step))
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
				if err := send(n.health()); err != nil {
					return err
				}
			case *wire.AuthOK:
				authenticated = true
				if err := send(n.health()); err != nil {
					return err
				}
			case *wire.AuthError:
				return fmt.Errorf("refused: %.100q", m.Message)
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
	return &wire.Health{Status: "ok", Version: n.version.String(), Capabilities: []string{wire.CapabilityUpgrade},
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
		n.next = func() {
			if fate == GoesBack {
				n.tell(id, release.RolledBack, to, from, fmt.Sprintf("went back from %s to %s (simulated)", to, from))
				n.restart, n.version, n.previous = true, from, from
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
