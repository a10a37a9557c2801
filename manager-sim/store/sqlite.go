package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	_ "modernc.org/sqlite" // driver "sqlite"
)

// migrations bring the schema from user_version i to i+1. One that has shipped
// is never changed.
var migrations = []string{
	`CREATE TABLE tokens (hash TEXT PRIMARY KEY) STRICT;
	CREATE TABLE nodes (
		id TEXT PRIMARY KEY, device_type TEXT NOT NULL, secret_hash TEXT NOT NULL,
		version TEXT NOT NULL, capabilities TEXT NOT NULL, upgrade TEXT,
		registered_at INTEGER NOT NULL, last_seen INTEGER NOT NULL
	) STRICT;
	CREATE TABLE commands (
		seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, node_id TEXT NOT NULL REFERENCES nodes(id),
		version TEXT NOT NULL, channel TEXT NOT NULL, action TEXT NOT NULL, created_at INTEGER NOT NULL,
		sent_at INTEGER NOT NULL DEFAULT 0, acked_at INTEGER NOT NULL DEFAULT 0, success INTEGER NOT NULL DEFAULT 0,
		error_code TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '', data TEXT
	) STRICT;
	CREATE INDEX commands_node ON commands(node_id, seq);
	CREATE TABLE events (
		seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, node_id TEXT NOT NULL REFERENCES nodes(id),
		time INTEGER NOT NULL, received_at INTEGER NOT NULL, severity TEXT NOT NULL, category TEXT NOT NULL,
		message TEXT NOT NULL, error_code TEXT NOT NULL, command_id TEXT NOT NULL, details TEXT NOT NULL
	) STRICT;
	CREATE UNIQUE INDEX events_once ON events(node_id, event_id) WHERE event_id != '';
	CREATE INDEX events_node ON events(node_id, seq);
	CREATE TABLE audit (
		seq INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, actor TEXT NOT NULL,
		action TEXT NOT NULL, target TEXT NOT NULL, details TEXT NOT NULL
	) STRICT;`,
	`CREATE TABLE groups (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL) STRICT;
	ALTER TABLE nodes ADD COLUMN group_id TEXT NOT NULL DEFAULT '';
	CREATE INDEX nodes_group ON nodes(group_id);
	CREATE TABLE rollouts (
		id TEXT PRIMARY KEY, group_id TEXT NOT NULL REFERENCES groups(id), revision INTEGER NOT NULL,
		active INTEGER NOT NULL, state TEXT NOT NULL, created_at INTEGER NOT NULL
	) STRICT;
	CREATE UNIQUE INDEX rollouts_active ON rollouts(group_id) WHERE active;`,
	`CREATE TABLE users (
		name TEXT PRIMARY KEY, hash TEXT NOT NULL, role TEXT NOT NULL, groups TEXT NOT NULL, created_at INTEGER NOT NULL
	) STRICT;
	CREATE TABLE sessions (
		hash TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users(name) ON DELETE CASCADE, expires_at INTEGER NOT NULL
	) STRICT;
	CREATE TABLE api_tokens (
		hash TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, groups TEXT NOT NULL, created_at INTEGER NOT NULL
	) STRICT;`,
}

type sqlite struct{ db *sql.DB }

// Open opens the SQLite file at path, making or migrating it as needed.
func Open(path string) (Store, error) {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_txlock=immediate"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	// One connection: SQLite has one writer, and waiting here beats SQLITE_BUSY.
	db.SetMaxOpenConns(1)
	if err := migrate(db); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &sqlite{db}, nil
}

func migrate(db *sql.DB) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var have int
	if err := tx.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if have > len(migrations) {
		return fmt.Errorf("its schema is %d; this program knows up to %d", have, len(migrations))
	}
	for _, m := range migrations[have:] {
		if _, err := tx.Exec(m); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", len(migrations))); err != nil {
		return err
	}
	return tx.Commit()
}

func (s *sqlite) Close() error { return s.db.Close() }

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

func (s *sqlite) AddToken(ctx context.Context, hash string) error {
	_, err := s.db.ExecContext(ctx, "INSERT OR IGNORE INTO tokens VALUES (?)", hash)
	return err
}

func (s *sqlite) Register(ctx context.Context, token string, n Node) error {
	r, err := s.db.ExecContext(ctx, `INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, upgrade, registered_at, last_seen)
		SELECT ?, ?, ?, ?, '[]', NULL, ?, ? FROM tokens WHERE hash = ?`,
		n.ID, n.DeviceType, n.SecretHash, n.Version, ms(n.RegisteredAt), ms(n.LastSeen), token)
	if err != nil {
		return err
	}
	if k, err := r.RowsAffected(); err != nil || k == 0 {
		return errors.Join(err, ErrDenied)
	}
	return nil
}

const nodeColumns = "id, device_type, secret_hash, version, capabilities, upgrade, registered_at, last_seen, group_id"

func scanNode(row interface{ Scan(...any) error }) (Node, error) {
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

func (s *sqlite) Node(ctx context.Context, id string) (Node, error) {
	n, err := scanNode(s.db.QueryRowContext(ctx, "SELECT "+nodeColumns+" FROM nodes WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return n, fmt.Errorf("node %q: %w", id, ErrNotFound)
	}
	return n, err
}

func (s *sqlite) Nodes(ctx context.Context) ([]Node, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+nodeColumns+" FROM nodes ORDER BY id")
	return collect(rows, err, scanNode)
}

func collect[T any](rows *sql.Rows, err error, scan func(interface{ Scan(...any) error }) (T, error)) ([]T, error) {
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

func (s *sqlite) Seen(ctx context.Context, n Node) error {
	if n.Capabilities == nil {
		_, err := s.db.ExecContext(ctx, "UPDATE nodes SET version = ?, last_seen = ? WHERE id = ?", n.Version, ms(n.LastSeen), n.ID)
		return err
	}
	caps, err := json.Marshal(n.Capabilities)
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "UPDATE nodes SET version = ?, last_seen = ?, capabilities = ?, upgrade = ? WHERE id = ?",
		n.Version, ms(n.LastSeen), string(caps), null(n.Upgrade), n.ID)
	return err
}

func (s *sqlite) AddCommand(ctx context.Context, c Command, a Audit) error {
	return s.tx(ctx, func(tx *sql.Tx) error { return errors.Join(addCommand(ctx, tx, c), addAudit(ctx, tx, a)) })
}

// tx runs f in a transaction.
func (s *sqlite) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

func addCommand(ctx context.Context, tx *sql.Tx, c Command) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO commands (id, node_id, version, channel, action, created_at) VALUES (?, ?, ?, ?, ?, ?)",
		c.ID, c.NodeID, c.Version, c.Channel, string(c.Action), ms(c.CreatedAt))
	return err
}

func addAudit(ctx context.Context, tx *sql.Tx, a Audit) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO audit (time, actor, action, target, details) VALUES (?, ?, ?, ?, ?)",
		ms(a.Time), a.Actor, a.Action, a.Target, string(a.Details))
	return err
}

func (s *sqlite) Sent(ctx context.Context, id string, at time.Time) error {
	_, err := s.db.ExecContext(ctx, "UPDATE commands SET sent_at = ? WHERE id = ?", ms(at), id)
	return err
}

func (s *sqlite) Acked(ctx context.Context, c Command) (bool, error) {
	r, err := s.db.ExecContext(ctx, `UPDATE commands SET acked_at = ?, success = ?, error_code = ?, error = ?, data = ?
		WHERE id = ? AND node_id = ? AND acked_at = 0`,
		ms(c.AckedAt), c.Success, c.ErrorCode, c.Error, null(c.Data), c.ID, c.NodeID)
	if err != nil {
		return false, err
	}
	k, err := r.RowsAffected()
	return k > 0, err
}

const commandColumns = "id, node_id, version, channel, action, created_at, sent_at, acked_at, success, error_code, error, data"

func scanCommand(row interface{ Scan(...any) error }) (Command, error) {
	var c Command
	var action string
	var data sql.NullString
	var created, sent, acked int64
	err := row.Scan(&c.ID, &c.NodeID, &c.Version, &c.Channel, &action, &created, &sent, &acked, &c.Success, &c.ErrorCode, &c.Error, &data)
	c.Action, c.Data = json.RawMessage(action), raw(data)
	c.CreatedAt, c.SentAt, c.AckedAt = fromMS(created), fromMS(sent), fromMS(acked)
	return c, err
}

func (s *sqlite) Commands(ctx context.Context, nodeID string, limit int) ([]Command, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+commandColumns+" FROM commands WHERE node_id = ? ORDER BY seq DESC LIMIT ?", nodeID, limit)
	return collect(rows, err, scanCommand)
}

func (s *sqlite) Command(ctx context.Context, id string) (Command, error) {
	c, err := scanCommand(s.db.QueryRowContext(ctx, "SELECT "+commandColumns+" FROM commands WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("command %q: %w", id, ErrNotFound)
	}
	return c, err
}

func (s *sqlite) AddEvent(ctx context.Context, e *Event) (bool, error) {
	r, err := s.db.ExecContext(ctx, `INSERT INTO events (event_id, node_id, time, received_at, severity, category, message, error_code, command_id, details)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node_id, event_id) WHERE event_id != '' DO NOTHING`,
		e.EventID, e.NodeID, ms(e.Time), ms(e.ReceivedAt), e.Severity, e.Category, e.Message, e.ErrorCode, e.CommandID, string(e.Details))
	if err != nil {
		return false, err
	}
	if k, err := r.RowsAffected(); err != nil || k == 0 {
		return false, err
	}
	e.Seq, err = r.LastInsertId()
	return true, err
}

func (s *sqlite) Events(ctx context.Context, f EventFilter) ([]Event, int, error) {
	where, args := []string{"1"}, []any{}
	add := func(cond string, v ...any) { where, args = append(where, cond), append(args, v...) }
	for col, v := range map[string]string{"node_id": f.NodeID, "severity": f.Severity, "category": f.Category, "command_id": f.CommandID} {
		if v != "" {
			add(col+" = ?", v)
		}
	}
	if f.Search != "" {
		add("(instr(lower(message), lower(?)) OR instr(error_code, lower(?)))", f.Search, f.Search)
	}
	if !f.From.IsZero() {
		add("received_at >= ?", ms(f.From))
	}
	if !f.To.IsZero() {
		add("received_at < ?", ms(f.To))
	}
	if f.Groups != nil {
		marks := strings.TrimSuffix(strings.Repeat("?, ", len(f.Groups)), ", ")
		groups := make([]any, len(f.Groups))
		for i, g := range f.Groups {
			groups[i] = g
		}
		add("node_id IN (SELECT id FROM nodes WHERE group_id != '' AND group_id IN ("+marks+"))", groups...)
	}
	cond := strings.Join(where, " AND ")
	var total int
	if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM events WHERE "+cond, args...).Scan(&total); err != nil {
		return nil, 0, err
	}
	rows, err := s.db.QueryContext(ctx, `SELECT seq, event_id, node_id, time, received_at, severity, category, message, error_code, command_id, details
		FROM events WHERE `+cond+" ORDER BY seq DESC LIMIT ? OFFSET ?", append(args, f.PerPage, (f.Page-1)*f.PerPage)...)
	events, err := collect(rows, err, func(row interface{ Scan(...any) error }) (Event, error) {
		var e Event
		var at, received int64
		var details string
		err := row.Scan(&e.Seq, &e.EventID, &e.NodeID, &at, &received, &e.Severity, &e.Category, &e.Message, &e.ErrorCode, &e.CommandID, &details)
		e.Time, e.ReceivedAt, e.Details = fromMS(at), fromMS(received), json.RawMessage(details)
		return e, err
	})
	return events, total, err
}

func (s *sqlite) AuditLog(ctx context.Context, limit int) ([]Audit, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT seq, time, actor, action, target, details FROM audit ORDER BY seq DESC LIMIT ?", limit)
	return collect(rows, err, func(row interface{ Scan(...any) error }) (Audit, error) {
		var a Audit
		var at int64
		var details string
		err := row.Scan(&a.Seq, &at, &a.Actor, &a.Action, &a.Target, &details)
		a.Time, a.Details = fromMS(at), json.RawMessage(details)
		return a, err
	})
}
