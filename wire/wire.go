// Package wire encodes and decodes the messages between a node and its manager. Each
// message is one WebSocket text frame of JSON:
//
//	{"type": "...", "timestamp": RFC 3339, "payload": {...}}
//
// Both sides ignore what they do not know: an unknown type decodes to Unknown, and
// unknown fields are dropped. A frame whose payload does not fit its type is an error;
// the receiver logs it at debug, drops it, and continues the session.
//
// A session runs in this order. The node sends Auth. The manager answers RegisterAck to
// a registration token, AuthOK to credentials, or AuthError. Then the node sends Health
// every HealthInterval and Events when they happen; the manager sends Commands, each of
// which the node answers with one CommandAck, and acknowledges stored Events with
// EventAck.
//
// A probe checks the link and opens no session. A manager that knows probes announces
// them with FeatureProbe, in FeaturesHeader and in its answer to Auth. The node sends an
// Auth with Probe, the manager answers AuthOK with Probe or AuthError, and keeps the
// connection as it keeps that of a session, until the node closes it. The manager refuses
// probes while it cannot serve sessions.
//
// An author's action is one that the program, not the agent, carries out. The node announces
// its names in Auth.Actions; the Command has parameters, and the CommandAck a result.
//
// Decode bounds every text, list and number, except for Action.Params, so a caller need not
// check them again. The package does no I/O and makes no decision.
package wire

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// Constants of the protocol.
const (
	Path            = "/ws/node" // path of the manager's WebSocket
	ProtocolVersion = 1
	MaxMessage      = 1 << 20 // bytes of one message; a longer one closes the connection with 1009
	MaxID           = 128     // bytes of a command id or event id
	MaxText         = 8 << 10 // bytes of a message or reason for people
	MaxJournal      = 64      // lines of the journal in an event
	MaxStarts       = 64      // entries of failed_starts in an event
	MaxEventIDs     = 10_000  // ids in an event_ack; an outbox has at most 1000 entries

	AuthTimeout    = 10 * time.Second // limit for the auth frame, and for its answer
	HealthInterval = 15 * time.Second
	ReadTimeout    = 45 * time.Second // without a frame or a control ping, the connection is dead

	// CloseReplaced is the close code of a session that the manager ends because
	// another session of the same node began.
	CloseReplaced = 4009

	// FeaturesHeader is an HTTP header of the answer that opens the WebSocket. It lists what
	// a node must know of this manager before it authenticates, separated by commas.
	FeaturesHeader = "Edge-Agent-Features"

	StatusOK       = "ok" // in Health.Status
	StatusDegraded = "degraded"

	StatusPendingHealth = "pending_health" // in Upgrade.Status: a trial is open
	TrialOpen           = "trial"          // in Health.Trial: no result yet
	TrialGuard          = "guard"          // the upgrade completed; a failure until the guard ends still rolls back
	TrialUnproven       = "unproven"       // the own check has held, and the link is neither proven nor disproven

	CapabilityUpgrade = "upgrade"        // in Health.Capabilities
	FeatureEventAck   = "event_ack"      // in AuthOK.Features
	FeatureProbe      = "probe"          // in AuthOK.Features and in FeaturesHeader
	FeatureWithdraw   = ActionWithdraw   // in Auth.Features
	CategoryUpgrade   = "upgrade"        // Event.Category of the events of upgrades
	ActionUpgrade     = "upgrade_binary" // Action.Type
	ActionWithdraw    = "upgrade_withdraw"
	ActionGetConfig   = "get_config"
	UnknownAction     = "unknown_action" // in CommandAck.ErrorCode, as ActionFailed
	ActionFailed      = "action_failed"
)

// Message is one of the message types of this package, as a pointer.
type Message interface{ wireType() string }

// Envelope is a message with its sender's time. The time is shown to people; no
// decision uses it. It is zero if it could not be parsed.
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

// Encode returns the frame of m with the time at. All three keys are always present.
// A frame of more than MaxMessage bytes is an error.
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

// Decode reads one frame of at most MaxMessage bytes. Ids in the message are present
// and bounded. Every text from a node is bounded, on one line and without control
// characters.
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

// checkID requires an id of at most MaxID printable characters without a space, because
// ids appear in logs and keys.
func checkID(what, s string) error {
	if s == "" {
		return fmt.Errorf("%s is missing", what)
	}
	if len(s) > MaxID {
		return fmt.Errorf("%s has %d bytes, more than %d", what, len(s), MaxID)
	}
	for _, r := range s {
		if r == ' ' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return fmt.Errorf("%s %q contains a space or a control character", what, s)
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
