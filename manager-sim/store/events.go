package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// EventFilter narrows Events; empty fields match all.
type EventFilter struct {
	NodeID, Severity, Category, CommandID string
	Search                                string   // in the message and the error code
	Groups                                []string // of their nodes; nil: all, also nodes without a group
	From, To                              time.Time
	Page, PerPage                         int   // from 1; 1 to api.MaxEventsPerPage
	Before, After                         int64 // only events with a lower (Before) or higher (After) Seq; 0: all
}

// Outcome is an event that decides the state of a command.
type Outcome struct {
	Code       string
	Message    string // its first maxOutcome characters
	Dependency bool   // wire.Details.Dependency
	ReceivedAt time.Time
}

// Bounds of one node's events. Beyond them its oldest events are deleted, so that a
// node cannot fill the disk, or push out the events of others.
const (
	EventsKept     = 10_000
	EventBytesKept = 16 << 20 // of their messages and details
)

// AddEvent adds an event, and reports false if the node's EventID exists already. It
// sets e.Seq. It deletes the oldest events of a node that exceeds EventsKept or
// EventBytesKept.
func (s *Store) AddEvent(ctx context.Context, e *api.Event) (bool, error) {
	added := false
	err := s.tx(ctx, func(tx conn) error {
		err := tx.row(ctx, `INSERT INTO events (event_id, node_id, time, received_at, severity, category, message, error_code, command_id, details)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node_id, event_id) WHERE event_id != '' DO NOTHING RETURNING seq`,
			e.EventID, e.NodeID, ms(e.Time), ms(e.ReceivedAt), e.Severity, e.Category, e.Message, e.ErrorCode, e.CommandID, string(e.Details)).Scan(&e.Seq)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		added = true
		var count, size int64
		// Numbers that this program does not write are counted anew, by deleteOldest.
		err = tx.row(ctx, `UPDATE nodes SET event_count = CASE WHEN event_count BETWEEN 0 AND ? THEN event_count + 1 ELSE ? END,
			event_bytes = CASE WHEN event_bytes BETWEEN 0 AND ? THEN event_bytes + ? ELSE 0 END WHERE id = ? RETURNING event_count, event_bytes`,
			EventsKept, EventsKept+1, int64(2*EventBytesKept), len(e.Message)+len(e.Details), e.NodeID).Scan(&count, &size)
		if err != nil || count <= EventsKept && size <= EventBytesKept {
			return err
		}
		return deleteOldest(ctx, tx, e.NodeID, count)
	})
	return added && err == nil, err
}

// deleteOldest deletes the oldest quarter of a node's events, and more while the
// remaining ones are too large. It never deletes the newest event.
func deleteOldest(ctx context.Context, tx conn, nodeID string, count int64) error {
	for {
		drop := max(count/4, 1)
		if drop >= count {
			return nil
		}
		if _, err := tx.exec(ctx, "DELETE FROM events WHERE node_id = ? AND seq < (SELECT seq FROM events WHERE node_id = ? ORDER BY seq LIMIT 1 OFFSET ?)", nodeID, nodeID, drop); err != nil {
			return err
		}
		var size int64
		err := tx.row(ctx, "SELECT count(*), COALESCE(SUM(length(message) + length(details)), 0) FROM events WHERE node_id = ?", nodeID).Scan(&count, &size)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, "UPDATE nodes SET event_count = ?, event_bytes = ? WHERE id = ?", count, size, nodeID); err != nil {
			return err
		}
		if size <= EventBytesKept {
			return nil
		}
	}
}

// Bounds of Outcomes.
const (
	maxOutcomes = 100
	maxOutcome  = 500 // characters of a message
)

// Outcomes returns the events that decide the state of a command, oldest first: of very
// many, the newest. With the command id "" it returns the rollbacks that no command
// caused.
func (s *Store) Outcomes(ctx context.Context, nodeID, commandID string) ([]Outcome, error) {
	// The details are JSON of this manager: a text in it cannot have these characters, since
	// its quotation marks are escaped.
	rows, err := s.query(ctx, `SELECT error_code, substr(message, 1, ?), received_at,
		CASE WHEN details LIKE '%"dependency":true%' THEN 1 ELSE 0 END FROM events
		WHERE node_id = ? AND command_id = ? AND (command_id != '' OR error_code = 'upgrade_rolled_back') ORDER BY seq DESC LIMIT ?`,
		maxOutcome, nodeID, commandID, maxOutcomes)
	list, err := list(ctx, rows, err, func(row scanner) (Outcome, error) { // a node is shown without an event that cannot be read
		var o Outcome
		var at int64
		var dependency int
		err := row.Scan(&o.Code, &o.Message, &at, &dependency)
		o.ReceivedAt, o.Dependency = fromMS(at), dependency != 0
		return o, err
	})
	slices.Reverse(list)
	return list, err
}

// Events returns a page, newest first, and how many events match in all, whatever
// Before and After are.
func (s *Store) Events(ctx context.Context, f EventFilter) ([]api.Event, int, error) {
	var w where
	w.equal("node_id", f.NodeID)
	w.equal("severity", f.Severity)
	w.equal("category", f.Category)
	w.equal("command_id", f.CommandID)
	if f.Search != "" {
		w.add("("+s.contains("message")+" OR "+s.contains("error_code")+")", f.Search, f.Search)
	}
	if !f.From.IsZero() {
		w.add("received_at >= ?", ms(f.From))
	}
	if !f.To.IsZero() {
		w.add("received_at < ?", ms(f.To))
	}
	if f.Groups != nil {
		marks := strings.TrimSuffix(strings.Repeat("?, ", len(f.Groups)), ", ")
		groups := make([]any, len(f.Groups))
		for i, g := range f.Groups {
			groups[i] = g
		}
		if len(groups) == 0 {
			marks = "NULL"
		}
		w.add("node_id IN (SELECT id FROM nodes WHERE group_id != '' AND group_id IN ("+marks+"))", groups...)
	}
	total, err := s.count(ctx, "events", w)
	if err != nil {
		return nil, 0, err
	}
	if f.Before > 0 {
		w.add("seq < ?", f.Before)
	}
	if f.After > 0 {
		w.add("seq > ?", f.After)
	}
	rows, err := s.query(ctx, `SELECT seq, event_id, node_id, time, received_at, severity, category, message, error_code, command_id, details
		FROM events`+w.String()+" ORDER BY seq DESC LIMIT ? OFFSET ?", append(w.args, f.PerPage, max(f.Page-1, 0)*f.PerPage)...)
	events, err := list(ctx, rows, err, func(row scanner) (api.Event, error) {
		var e api.Event
		var at, received int64
		var details string
		err := row.Scan(&e.Seq, &e.EventID, &e.NodeID, &at, &received, &e.Severity, &e.Category, &e.Message, &e.ErrorCode, &e.CommandID, &details)
		e.Time, e.ReceivedAt, e.Details = fromMS(at), fromMS(received), json.RawMessage(details)
		return e, cmp.Or(err, valid(e.Details))
	})
	return events, total, err
}
