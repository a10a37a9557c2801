package api

import (
	"encoding/json"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// Event is one that a node reported, or that the manager reports about a node.
type Event struct {
	Seq        int64           `json:"seq"` // in the order of arrival
	EventID    string          `json:"event_id,omitempty"`
	NodeID     string          `json:"node_id"`
	Time       time.Time       `json:"time"` // by the node's clock
	ReceivedAt time.Time       `json:"received_at"`
	Severity   string          `json:"severity"`
	Category   string          `json:"category"`
	Message    string          `json:"message"`
	ErrorCode  string          `json:"error_code,omitempty"`
	CommandID  string          `json:"command_id,omitempty"`
	Details    json.RawMessage `json:"details"`
}

// EventList is a page of events, newest first.
type EventList struct {
	Events  []Event `json:"events"`
	Total   int     `json:"total"` // matching events on all pages
	Page    int     `json:"page"`
	PerPage int     `json:"per_page"`
	Next    string  `json:"next,omitempty"`
	// Unreadable is how many entries were left out because the manager cannot read them.
	Unreadable int `json:"unreadable,omitempty"`
}

// AuditEntry is an entry of the audit trail.
type AuditEntry struct {
	Seq     int64           `json:"seq"`
	Time    time.Time       `json:"time"`
	Actor   string          `json:"actor"`
	Action  string          `json:"action"`
	Target  string          `json:"target"`
	Details json.RawMessage `json:"details"`
}

// AuditList is a page of the audit trail, newest first.
type AuditList struct {
	Entries []AuditEntry `json:"entries"`
	Total   int          `json:"total"` // matching entries on all pages
	Next    string       `json:"next,omitempty"`
	// Unreadable is how many entries were left out because the manager cannot read them.
	Unreadable int `json:"unreadable,omitempty"`
}

// Types of the records of the event stream. RecordAuthenticated and
// RecordDisconnected are about a node's session.
const (
	RecordEvent         = "event"
	RecordAuthenticated = Authenticated
	RecordDisconnected  = Disconnected
	RecordCapabilities  = "capabilities" // at the first health beat, and at each change of capabilities, version, health or trial
	RecordAck           = "ack"
	RecordRollout       = "rollout" // a rollout changed
	RecordGap           = "gap"     // more events were missed than the stream repeats; Events has them
)

// NodeRecord reports the beginning or the end of a node's session.
type NodeRecord struct {
	Type    string    `json:"type"` // RecordAuthenticated or RecordDisconnected
	Time    time.Time `json:"time"`
	NodeID  string    `json:"node_id"`
	Version string    `json:"version,omitempty"`
}

// CapabilityRecord reports a node's capabilities.
type CapabilityRecord struct {
	Type         string    `json:"type"` // RecordCapabilities
	Time         time.Time `json:"time"`
	NodeID       string    `json:"node_id"`
	Version      string    `json:"version"`
	Capabilities []string  `json:"capabilities"`
}

// AckRecord reports that a node acknowledged a command.
type AckRecord struct {
	Type      string    `json:"type"` // RecordAck
	Time      time.Time `json:"time"`
	NodeID    string    `json:"node_id"`
	CommandID string    `json:"command_id"`
	Success   bool      `json:"success"`
	ErrorCode string    `json:"error_code,omitempty"`
}

// EventRecord reports a new event.
type EventRecord struct {
	Type string `json:"type"` // RecordEvent
	Event
}

// RolloutRecord reports that a rollout changed.
type RolloutRecord struct {
	Type      string         `json:"type"` // RecordRollout
	Time      time.Time      `json:"time"`
	RolloutID string         `json:"rollout_id"`
	GroupID   string         `json:"group_id"`
	Status    rollout.Status `json:"status"`
	Wave      int            `json:"wave"` // from 1
}

// GapRecord reports that the stream does not repeat all events that were missed.
type GapRecord struct {
	Type string `json:"type"` // RecordGap
}

// Record is any record of the event stream: the fields of its type are set. Its
// Version, Success and so on mean what they mean in the type's own struct.
type Record struct {
	Type         string         `json:"type"` // "": a heartbeat, which has nothing else
	Time         time.Time      `json:"time"`
	NodeID       string         `json:"node_id"`
	Version      string         `json:"version"`
	Capabilities []string       `json:"capabilities"`
	CommandID    string         `json:"command_id"`
	Success      bool           `json:"success"`
	ErrorCode    string         `json:"error_code"`
	RolloutID    string         `json:"rollout_id"`
	GroupID      string         `json:"group_id"`
	Status       rollout.Status `json:"status"`
	Wave         int            `json:"wave"`

	Seq        int64           `json:"seq"` // of an event: Stream resumes after it
	EventID    string          `json:"event_id"`
	ReceivedAt time.Time       `json:"received_at"`
	Severity   string          `json:"severity"`
	Category   string          `json:"category"`
	Message    string          `json:"message"`
	Details    json.RawMessage `json:"details"`

	Raw json.RawMessage `json:"-"` // the record as the manager sent it
}

// Event returns the event of a record of the type RecordEvent.
func (r Record) Event() Event {
	return Event{Seq: r.Seq, EventID: r.EventID, NodeID: r.NodeID, Time: r.Time, ReceivedAt: r.ReceivedAt, Severity: r.Severity,
		Category: r.Category, Message: r.Message, ErrorCode: r.ErrorCode, CommandID: r.CommandID, Details: r.Details}
}
