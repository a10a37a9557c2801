package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

const (
	// maxProbeMessage bounds what the manager may send to a probe at once, in bytes.
	maxProbeMessage = 64 << 10
	// pongTime is how long the last pong may take, which shows that the connection is held.
	pongTime = 15 * time.Second
)

// authenticate has the manager check the credentials.
func (p *prober) authenticate(conn *websocket.Conn) error {
	if p.credErr != nil {
		return p.credErr
	}
	conn.SetReadLimit(maxProbeMessage)
	err := sendTo(conn, &wire.Auth{NodeID: p.cred.NodeID, NodeSecret: p.cred.NodeSecret, SoftwareVersion: p.o.Version,
		DeviceType: p.c.Host.DeviceType, ProtocolVersion: wire.ProtocolVersion, Probe: true}, time.Now(), func() {})
	if err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	conn.SetReadDeadline(time.Now().Add(limit(silentTimeout)))
	for {
		_, b, err := conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("authenticate: %w", bounded(readError(err)))
		}
		env, err := wire.Decode(b)
		if err != nil {
			continue // as a session ignores it
		}
		switch m := env.Message.(type) {
		case *wire.AuthOK:
			if !m.Probe {
				return errors.New("the manager announces probes, and opened a session for this one; it may have ended the session of the running agent, which reconnects")
			}
			return nil
		case *wire.RegisterAck:
			return errors.New("the manager answers a probe with register_ack; it is ignored")
		case *wire.AuthError:
			return refusal(conn, m.Message)
		}
	}
}

var errHeld = errors.New("held")

// held waits until the connection has been held, and shows it by a pong.
func (p *prober) held(conn *websocket.Conn) error {
	began := time.Now()
	conn.SetReadDeadline(began.Add(p.o.hold + limit(pongTime)))
	conn.SetPongHandler(func(string) error {
		if time.Since(began) >= p.o.hold {
			return errHeld
		}
		return nil
	})
	ping := time.AfterFunc(p.o.hold, func() {
		conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(limit(pongTime)))
	})
	defer ping.Stop()
	for {
		_, b, err := conn.ReadMessage()
		if errors.Is(err, errHeld) {
			conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
			return nil
		}
		if err != nil {
			return fmt.Errorf("the connection ended %.1f s after authentication: %w", time.Since(began).Seconds(), bounded(readError(err)))
		}
		env, err := wire.Decode(b)
		if err != nil {
			continue
		}
		switch m := env.Message.(type) {
		case *wire.Ping:
			if err := sendTo(conn, &wire.Pong{}, time.Now(), func() {}); err != nil {
				return err
			}
		case *wire.AuthError:
			return fmt.Errorf("the manager ends the connection: %q", release.Foreign(m.Message, release.ForeignLimit))
		}
	}
}
