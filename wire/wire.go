// Package wire turns the messages between node and manager into bytes and
// back. Each message is one WebSocket text frame of JSON:
//
//	{"type": "...", "timestamp": RFC 3339, "payload": {...}}
//
// Both sides ignore what they do not know: an unknown type decodes to Unknown,
// unknown fields are dropped. Only a frame that cannot be what its type says
// is an error, and even then a session goes on (log it at debug, drop it).
// The package does no I/O and holds no policy.
package wire

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// Fixed numbers of the protocol.
const (
	Path            = "/ws/node" // of the manager's WebSocket
	ProtocolVersion = 1
	MaxMessage      = 1 << 20 // bytes of one message; more closes the connection with 1009
	MaxID           = 128     // bytes of a command id or event id
	MaxText         = 8 << 10 // bytes of a message or reason meant for people
	MaxJournal      = 64      // lines of the journal in an event
	MaxStarts       = 64      // entries of failed_starts in an event
	MaxEventIDs     = 10_000  // ids in an event_ack; an outbox has at most 1000

	AuthTimeout    = 10 * time.Second // for the auth frame, and for its answer
	HealthInterval = 15 * time.Second
	ReadTimeout    = 45 * time.Second // without a frame or a control ping: the link is dead

	// CloseReplaced is the code of the close frame with which a manager ends a
	// session, because another one of the same node began.
	CloseReplaced = 4009

	StatusOK          = "ok" // of Health.Status
	StatusDegraded    = "degraded"
	CapabilityUpgrade = "upgrade"        // in Health.Capabilities
	FeatureEventAck   = "event_ack"      // in AuthOK.Features
	CategoryUpgrade   = "upgrade"        // Event.Category of everything here
	ActionUpgrade     = "upgrade_binary" // Action.Type
	ActionGetConfig   = "get_config"
	UnknownAction     = "unknown_action" // ErrorCode of an ack, as the next
	ActionFailed      = "action_failed"
)

// Message is one of the pointer types of this package.
type Message interface{ wireType() string }

// Envelope is a message with the time its sender put on it; people read the
// time, no decision does. It is zero when the sender's could not be parsed.
type Envelope struct {
	Time    time.Time
	Message Message
}

type frame struct {
	Type      string          `json:"type"`
	Timestamp json.RawMessage `json:"timestamp"`
	Payload   json.RawMessage `json:"payload"`
	Message   string          `json:"message,omitempty"` // auth_error only
}

// Encode returns the frame for m. All three keys are always present.
func Encode(m Message, at time.Time) ([]byte, error) {
	f := frame{Type: m.wireType(), Payload: json.RawMessage("null")}
	f.Timestamp = json.RawMessage(at.UTC().Format(`"2006-01-02T15:04:05.000Z"`))
	switch m := m.(type) {
	case *Ping, *Pong:
	case *AuthError:
		f.Message = m.Message
	default:
		b, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", f.Type, err)
		}
		f.Payload = b
	}
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", f.Type, err)
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("encode %s: %d bytes, more than %d", f.Type, len(b), MaxMessage)
	}
	return b, nil
}

// Decode reads one frame. The message it returns has passed its own checks: ids
// are present and bounded, and what a node says of itself is bounded, on one line
// and without control characters, so a caller need not check again.
func Decode(b []byte) (Envelope, error) {
	if len(b) > MaxMessage {
		return Envelope{}, fmt.Errorf("message of %d bytes, more than %d", len(b), MaxMessage)
	}
	var f frame
	if err := json.Unmarshal(b, &f); err != nil {
		return Envelope{}, fmt.Errorf("message: %w", err)
	}
	if f.Type == "" {
		return Envelope{}, fmt.Errorf("message: type is missing")
	}
	var e Envelope
	var stamp string
	if json.Unmarshal(f.Timestamp, &stamp) == nil {
		if t, err := time.Parse(time.RFC3339, stamp); err == nil {
			e.Time = sane(t)
		}
	}
	m := newMessage(f.Type)
	if len(f.Payload) > 0 {
		if err := json.Unmarshal(f.Payload, m); err != nil {
			return Envelope{}, fmt.Errorf("%.64q: %w", f.Type, err)
		}
	}
	if a, ok := m.(*AuthError); ok && f.Message != "" {
		a.Message = f.Message
	}
	if c, ok := m.(interface{ check() error }); ok {
		if err := c.check(); err != nil {
			return Envelope{}, fmt.Errorf("%s: %w", f.Type, err)
		}
	}
	if c, ok := m.(interface{ clean() }); ok {
		c.clean()
	}
	e.Message = m
	return e, nil
}

func newMessage(typ string) Message {
	switch typ {
	case "auth":
		return new(Auth)
	case "auth_ok":
		return new(AuthOK)
	case "auth_error":
		return new(AuthError)
	case "register_ack":
		return new(RegisterAck)
	case "health":
		return new(Health)
	case "command":
		return new(Command)
	case "command_ack":
		return new(CommandAck)
	case "event":
		return new(Event)
	case "event_ack":
		return new(EventAck)
	case "config_response":
		return new(ConfigResponse)
	case "ping":
		return new(Ping)
	case "pong":
		return new(Pong)
	}
	return &Unknown{Type: typ}
}

// checkID bounds an id and keeps it to one line: ids go into logs and keys.
func checkID(what, s string) error {
	if s == "" {
		return fmt.Errorf("%s is missing", what)
	}
	if len(s) > MaxID {
		return fmt.Errorf("%s has %d bytes, more than %d", what, len(s), MaxID)
	}
	for _, r := range s {
		if r == ' ' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return fmt.Errorf("%s %q holds a space or a control character", what, s)
		}
	}
	return nil
}

func checkLen(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s has %d bytes, more than %d", what, len(s), limit)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
