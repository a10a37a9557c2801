// Package store is what the simulated manager remembers: nodes, the commands
// it gave them, their events, and the audit trail. The store is the truth: a
// manager that is killed at any moment carries on from it.
//
// Audit entries are only ever added. Events are added too, and the oldest of a
// node that reports very many are deleted.
package store

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("not found")
	ErrDenied   = errors.New("denied")
)

// Node is a registered node.
type Node struct {
	ID           string
	DeviceType   string
	SecretHash   string // SHA-256 of its secret, hex
	Version      string // at its last authentication or health beat
	Capabilities []string
	Upgrade      json.RawMessage // of its last health beat; nil if it had none
	RegisteredAt time.Time
	LastSeen     time.Time
	GroupID      string        // "" for none
	Health       string        // of its last health beat: wire.StatusOK or wire.StatusDegraded; "" if it had none
	Unavailable  string        // why it offered no upgrades at its last health beat; "": not said
	Address      string        // from which it connected last
	Duplicate    api.Duplicate // zero: one device uses its identity
	RemovedAt    time.Time     // zero: it was not
}

// Outcome is what decides the state of a command: one event of it.
type Outcome struct {
	Code       string
	Message    string // at most maxOutcome characters of it
	ReceivedAt time.Time
}

// Command is one that was given to a node.
type Command struct {
	ID        string
	NodeID    string
	Version   string
	Channel   string
	Action    json.RawMessage // as it is sent
	CreatedAt time.Time
	SentAt    time.Time // the last time; zero: never
	AckedAt   time.Time // zero: not acknowledged
	Success   bool
	ErrorCode string
	Error     string
	Data      json.RawMessage
	Actor     string // who requested it; "" for a command of an earlier version
	// Replaces is the id of a command that AddCommand withdraws if it was not sent yet;
	// it is not stored.
	Replaces string
}

// API returns the command as the REST API shows it.
func (c Command) API() api.Command {
	return api.Command{ID: c.ID, NodeID: c.NodeID, Version: c.Version, Channel: c.Channel, Action: c.Action, CreatedAt: c.CreatedAt, SentAt: c.SentAt,
		AckedAt: c.AckedAt, Success: c.Success, ErrorCode: c.ErrorCode, Error: c.Error, Data: c.Data, Actor: c.Actor}
}

// EventFilter narrows Events; empty fields match all.
type EventFilter struct {
	NodeID, Severity, Category, CommandID string
	Search                                string   // in the message and the error code
	Groups                                []string // of their nodes; nil: all, and none
	From, To                              time.Time
	Page, PerPage                         int   // from 1; 1 to api.MaxEventsPerPage
	Before, After                         int64 // only events with a lower, or a higher Seq; 0: all
}

// AuditFilter narrows AuditLog; empty fields match all.
type AuditFilter struct {
	Actor, Action, Target string
	Before                int64 // only entries with a lower Seq; 0: all
	Limit                 int
}
