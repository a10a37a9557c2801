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

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// Times are kept as Unix milliseconds; 0 is the zero time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// maxMS is the last day that JSON can carry. Earlier versions stored later ones.
var maxMS = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMilli()

func fromMS(v int64) time.Time {
	if v == 0 || v > maxMS || v < -maxMS/8 {
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

// AddToken makes a registration token valid, by its hash. Repeating it changes
// nothing.
func (s *Store) AddToken(ctx context.Context, hash string) error {
	_, err := s.exec(ctx, "INSERT INTO tokens VALUES (?) ON CONFLICT DO NOTHING", hash)
	return err
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

// AddCommand adds a command and its audit entry, or neither. It returns ErrConflict if
// c.Replaces was sent or has ended.
func (s *Store) AddCommand(ctx context.Context, c Command, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		if c.Replaces != "" {
			r, err := tx.exec(ctx, "UPDATE commands SET acked_at = ?, success = ?, error_code = ?, error = ? WHERE id = ? AND node_id = ? AND sent_at = 0 AND acked_at = 0",
				ms(c.CreatedAt), false, api.CodeReplaced, "replaced by another command before it was sent", c.Replaces, c.NodeID)
			if err != nil {
				return err
			}
			if k, err := r.RowsAffected(); err != nil || k == 0 {
				return errors.Join(err, fmt.Errorf("command %q was sent: %w", c.Replaces, ErrConflict))
			}
		}
		return errors.Join(addCommand(ctx, tx, c), addAudit(ctx, tx, a))
	})
}

func addCommand(ctx context.Context, tx conn, c Command) error {
	_, err := tx.exec(ctx, "INSERT INTO commands (id, node_id, version, channel, action, created_at, actor) VALUES (?, ?, ?, ?, ?, ?, ?)",
		c.ID, c.NodeID, c.Version, c.Channel, string(c.Action), ms(c.CreatedAt), c.Actor)
	return err
}

func addAudit(ctx context.Context, tx conn, a api.AuditEntry) error {
	_, err := tx.exec(ctx, "INSERT INTO audit (time, actor, action, target, details) VALUES (?, ?, ?, ?, ?)",
		ms(a.Time), a.Actor, a.Action, a.Target, string(a.Details))
	return err
}

// RecordSent records that a command was sent. Repeating it records the later time.
func (s *Store) RecordSent(ctx context.Context, id string, at time.Time) error {
	_, err := s.exec(ctx, "UPDATE commands SET sent_at = ? WHERE id = ?", ms(at), id)
	return err
}

// RecordAck records the outcome of a node's command. Only the first one counts: for a
// repeated one, or a command of another node, it reports false.
func (s *Store) RecordAck(ctx context.Context, c Command) (bool, error) {
	r, err := s.exec(ctx, `UPDATE commands SET acked_at = ?, success = ?, error_code = ?, error = ?, data = ?
		WHERE id = ? AND node_id = ? AND acked_at = 0`,
		ms(c.AckedAt), c.Success, c.ErrorCode, c.Error, null(c.Data), c.ID, c.NodeID)
	if err != nil {
		return false, err
	}
	k, err := r.RowsAffected()
	return k > 0, err
}

const commandColumns = "id, node_id, version, channel, action, created_at, sent_at, acked_at, success, error_code, error, data, actor"

func scanCommand(row scanner) (Command, error) {
	var c Command
	var action string
	var data sql.NullString
	var created, sent, acked int64
	err := row.Scan(&c.ID, &c.NodeID, &c.Version, &c.Channel, &action, &created, &sent, &acked, &c.Success, &c.ErrorCode, &c.Error, &data, &c.Actor)
	c.Action, c.Data = json.RawMessage(action), raw(data)
	c.CreatedAt, c.SentAt, c.AckedAt = fromMS(created), fromMS(sent), fromMS(acked)
	return c, err
}

// Commands returns a node's commands, newest first, at most limit; all if limit is
// negative.
func (s *Store) Commands(ctx context.Context, nodeID string, limit int) ([]Command, error) {
	rows, err := s.query(ctx, "SELECT "+commandColumns+" FROM commands WHERE node_id = ? ORDER BY seq DESC LIMIT ?", nodeID, all(limit))
	return collect(rows, err, scanCommand)
}

// Command returns a command, or ErrNotFound.
func (s *Store) Command(ctx context.Context, id string) (Command, error) {
	c, err := scanCommand(s.row(ctx, "SELECT "+commandColumns+" FROM commands WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("command %q: %w", id, ErrNotFound)
	}
	return c, err
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
func (s *Store) count(ctx context.Context, table string, w where) (n int, err error) {
	err = s.row(ctx, "SELECT count(*) FROM "+table+w.String(), w.args...).Scan(&n)
	return n, err
}

// AuditLog returns entries, newest first, and how many match in all, whatever Before is.
func (s *Store) AuditLog(ctx context.Context, f AuditFilter) ([]api.AuditEntry, int, error) {
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
	entries, err := collect(rows, err, func(row scanner) (api.AuditEntry, error) {
		var a api.AuditEntry
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
