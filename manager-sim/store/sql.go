package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Times are kept as Unix milliseconds; 0 is the zero time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMS(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMilli(v).UTC()
}

func null(b json.RawMessage) sql.NullString {
	return sql.NullString{String: string(b), Valid: b != nil}
}

func raw(s sql.NullString) json.RawMessage {
	if !s.Valid {
		return nil
	}
	return json.RawMessage(s.String)
}

func (s *database) AddToken(ctx context.Context, hash string) error {
	_, err := s.exec(ctx, "INSERT INTO tokens VALUES (?) ON CONFLICT DO NOTHING", hash)
	return err
}

func (s *database) Register(ctx context.Context, token string, n Node) error {
	return s.tx(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, `INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, upgrade, registered_at, last_seen)
			SELECT ?, ?, ?, ?, '[]', NULL, CAST(? AS BIGINT), CAST(? AS BIGINT) FROM tokens WHERE hash = ?`,
			n.ID, n.DeviceType, n.SecretHash, n.Version, ms(n.RegisteredAt), ms(n.LastSeen), token)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, ErrDenied)
		}
		return addConnection(ctx, tx, Connection{n.ID, n.LastSeen, Authenticated, n.Version})
	})
}

const nodeColumns = "id, device_type, secret_hash, version, capabilities, upgrade, registered_at, last_seen, group_id"

func scanNode(row scanner) (Node, error) {
	var n Node
	var caps string
	var up sql.NullString
	var reg, seen int64
	if err := row.Scan(&n.ID, &n.DeviceType, &n.SecretHash, &n.Version, &caps, &up, &reg, &seen, &n.GroupID); err != nil {
		return n, err
	}
	n.Upgrade, n.RegisteredAt, n.LastSeen = raw(up), fromMS(reg), fromMS(seen)
	return n, json.Unmarshal([]byte(caps), &n.Capabilities)
}

func (s *database) Node(ctx context.Context, id string) (Node, error) {
	n, err := scanNode(s.row(ctx, "SELECT "+nodeColumns+" FROM nodes WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return n, fmt.Errorf("node %q: %w", id, ErrNotFound)
	}
	return n, err
}

func (s *database) Nodes(ctx context.Context) ([]Node, error) {
	rows, err := s.query(ctx, "SELECT "+nodeColumns+" FROM nodes ORDER BY id")
	return collect(rows, err, scanNode)
}

func collect[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

func (s *database) Seen(ctx context.Context, n Node) error {
	caps, err := json.Marshal(append([]string{}, n.Capabilities...))
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, "UPDATE nodes SET version = ?, last_seen = ?, capabilities = ?, upgrade = ? WHERE id = ?",
		n.Version, ms(n.LastSeen), string(caps), null(n.Upgrade), n.ID)
	return err
}

func (s *database) Came(ctx context.Context, id, version string, at time.Time) error {
	return s.tx(ctx, func(tx conn) error {
		if _, err := tx.exec(ctx, "UPDATE nodes SET version = ?, last_seen = ? WHERE id = ?", version, ms(at), id); err != nil {
			return err
		}
		return addConnection(ctx, tx, Connection{id, at, Authenticated, version})
	})
}

func (s *database) Went(ctx context.Context, id string, at time.Time) error {
	return s.tx(ctx, func(tx conn) error { return addConnection(ctx, tx, Connection{id, at, Disconnected, ""}) })
}

func (s *database) AddCommand(ctx context.Context, c Command, a Audit) error {
	return s.change(ctx, func(tx conn) error { return errors.Join(addCommand(ctx, tx, c), addAudit(ctx, tx, a)) })
}

func addCommand(ctx context.Context, tx conn, c Command) error {
	_, err := tx.exec(ctx, "INSERT INTO commands (id, node_id, version, channel, action, created_at) VALUES (?, ?, ?, ?, ?, ?)",
		c.ID, c.NodeID, c.Version, c.Channel, string(c.Action), ms(c.CreatedAt))
	return err
}

func addAudit(ctx context.Context, tx conn, a Audit) error {
	_, err := tx.exec(ctx, "INSERT INTO audit (time, actor, action, target, details) VALUES (?, ?, ?, ?, ?)",
		ms(a.Time), a.Actor, a.Action, a.Target, string(a.Details))
	return err
}

func (s *database) Sent(ctx context.Context, id string, at time.Time) error {
	_, err := s.exec(ctx, "UPDATE commands SET sent_at = ? WHERE id = ?", ms(at), id)
	return err
}

func (s *database) Acked(ctx context.Context, c Command) (bool, error) {
	r, err := s.exec(ctx, `UPDATE commands SET acked_at = ?, success = ?, error_code = ?, error = ?, data = ?
		WHERE id = ? AND node_id = ? AND acked_at = 0`,
		ms(c.AckedAt), c.Success, c.ErrorCode, c.Error, null(c.Data), c.ID, c.NodeID)
	if err != nil {
		return false, err
	}
	k, err := r.RowsAffected()
	return k > 0, err
}

const commandColumns = "id, node_id, version, channel, action, created_at, sent_at, acked_at, success, error_code, error, data"

func scanCommand(row scanner) (Command, error) {
	var c Command
	var action string
	var data sql.NullString
	var created, sent, acked int64
	err := row.Scan(&c.ID, &c.NodeID, &c.Version, &c.Channel, &action, &created, &sent, &acked, &c.Success, &c.ErrorCode, &c.Error, &data)
	c.Action, c.Data = json.RawMessage(action), raw(data)
	c.CreatedAt, c.SentAt, c.AckedAt = fromMS(created), fromMS(sent), fromMS(acked)
	return c, err
}

func (s *database) Commands(ctx context.Context, nodeID string, limit int) ([]Command, error) {
	rows, err := s.query(ctx, "SELECT "+commandColumns+" FROM commands WHERE node_id = ? ORDER BY seq DESC LIMIT ?", nodeID, all(limit))
	return collect(rows, err, scanCommand)
}

func (s *database) Command(ctx context.Context, id string) (Command, error) {
	c, err := scanCommand(s.row(ctx, "SELECT "+commandColumns+" FROM commands WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("command %q: %w", id, ErrNotFound)
	}
	return c, err
}

func (s *database) AddEvent(ctx context.Context, e *Event) (bool, error) {
	err := s.row(ctx, `INSERT INTO events (event_id, node_id, time, received_at, severity, category, message, error_code, command_id, details)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node_id, event_id) WHERE event_id != '' DO NOTHING RETURNING seq`,
		e.EventID, e.NodeID, ms(e.Time), ms(e.ReceivedAt), e.Severity, e.Category, e.Message, e.ErrorCode, e.CommandID, string(e.Details)).Scan(&e.Seq)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// where collects conditions that all hold.
type where struct {
	conds []string
	args  []any
}

func (w *where) add(cond string, args ...any) {
	w.conds, w.args = append(w.conds, cond), append(w.args, args...)
}

// equal adds a condition for a column, unless v is "", which matches all.
func (w *where) equal(column, v string) {
	if v != "" {
		w.add(column+" = ?", v)
	}
}

func (w *where) String() string {
	if len(w.conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conds, " AND ")
}

// count returns how many rows of the table match.
func (s *database) count(ctx context.Context, table string, w where) (n int, err error) {
	err = s.row(ctx, "SELECT count(*) FROM "+table+w.String(), w.args...).Scan(&n)
	return n, err
}

func (s *database) Events(ctx context.Context, f EventFilter) ([]Event, int, error) {
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
	events, err := collect(rows, err, func(row scanner) (Event, error) {
		var e Event
		var at, received int64
		var details string
		err := row.Scan(&e.Seq, &e.EventID, &e.NodeID, &at, &received, &e.Severity, &e.Category, &e.Message, &e.ErrorCode, &e.CommandID, &details)
		e.Time, e.ReceivedAt, e.Details = fromMS(at), fromMS(received), json.RawMessage(details)
		return e, err
	})
	return events, total, err
}

func (s *database) AuditLog(ctx context.Context, f AuditFilter) ([]Audit, int, error) {
	var w where
	w.equal("actor", f.Actor)
	w.equal("action", f.Action)
	w.equal("target", f.Target)
	total, err := s.count(ctx, "audit", w)
	if err != nil {
		return nil, 0, err
	}
	if f.Before > 0 {
		w.add("seq < ?", f.Before)
	}
	rows, err := s.query(ctx, "SELECT seq, time, actor, action, target, details FROM audit"+w.String()+" ORDER BY seq DESC LIMIT ?", append(w.args, f.Limit)...)
	entries, err := collect(rows, err, func(row scanner) (Audit, error) {
		var a Audit
		var at int64
		var details string
		err := row.Scan(&a.Seq, &at, &a.Actor, &a.Action, &a.Target, &details)
		a.Time, a.Details = fromMS(at), json.RawMessage(details)
		return a, err
	})
	return entries, total, err
}

// all is the limit that is none.
func all(limit int) int {
	if limit < 0 {
		return math.MaxInt32
	}
	return limit
}

// connectionsKept bounds what is remembered of one node's connections.
const connectionsKept = 1000

func addConnection(ctx context.Context, tx conn, c Connection) error {
	if _, err := tx.exec(ctx, "INSERT INTO connections (node_id, time, state, version) VALUES (?, ?, ?, ?)", c.NodeID, ms(c.Time), c.State, c.Version); err != nil {
		return err
	}
	_, err := tx.exec(ctx, "DELETE FROM connections WHERE node_id = ? AND seq <= (SELECT seq FROM connections WHERE node_id = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)", c.NodeID, c.NodeID, connectionsKept)
	return err
}

func (s *database) Connections(ctx context.Context, nodeID string) ([]Connection, error) {
	rows, err := s.query(ctx, "SELECT node_id, time, state, version FROM connections WHERE node_id = ? ORDER BY seq DESC", nodeID)
	return collect(rows, err, func(row scanner) (Connection, error) {
		var c Connection
		var at int64
		err := row.Scan(&c.NodeID, &at, &c.State, &c.Version)
		c.Time = fromMS(at)
		return c, err
	})
}
