package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// Session is the session of a user who signed in.
type Session struct {
	Hash         string // of its secret
	User         string
	PasswordHash string // with which the user signed in
	Source       string // address, as sign-ins are counted by
	Expires      time.Time
}

const (
	// SignInsKept is how long a source that a user signed in from is known.
	SignInsKept = 30 * 24 * time.Hour
	// sourcesKept is how many sources of one user are kept, the newest ones.
	sourcesKept = 100
)

// AddSession adds a session. It returns ErrConflict if the user does not exist, or has
// another password than PasswordHash.
func (s *Store) AddSession(ctx context.Context, n Session, a api.AuditEntry) error {
	return s.tx(ctx, func(tx conn) error {
		now := time.Now()
		if _, err := tx.exec(ctx, "DELETE FROM sessions WHERE expires_at < ?", ms(now)); err != nil {
			return err
		}
		r, err := tx.exec(ctx, "INSERT INTO sessions SELECT ?, name, CAST(? AS BIGINT) FROM users WHERE name = ? AND hash = ?", n.Hash, ms(n.Expires), n.User, n.PasswordHash)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("user %q has another password now: %w", n.User, ErrConflict))
		}
		if _, err := tx.exec(ctx, `INSERT INTO sign_ins VALUES (?, ?, ?) ON CONFLICT ("user", source) DO UPDATE SET time = excluded.time`, n.User, n.Source, ms(now)); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, "DELETE FROM sign_ins WHERE time < ?", ms(now.Add(-SignInsKept))); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM sign_ins WHERE "user" = ? AND time < (SELECT time FROM sign_ins WHERE "user" = ? ORDER BY time DESC LIMIT 1 OFFSET ?)`, n.User, n.User, sourcesKept-1); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// SignedInFrom reports whether the user signed in from a source within SignInsKept.
func (s *Store) SignedInFrom(ctx context.Context, user, source string, now time.Time) (bool, error) {
	var n int
	err := s.row(ctx, `SELECT count(*) FROM sign_ins WHERE "user" = ? AND source = ? AND time > ?`, user, source, ms(now.Add(-SignInsKept))).Scan(&n)
	return n > 0, err
}

// SessionUser returns the user of a session and when the session ends, or ErrNotFound
// if there is no such session at now.
func (s *Store) SessionUser(ctx context.Context, hash string, now time.Time) (User, time.Time, error) {
	var expires int64
	u, err := scanUser(extraColumn{s.row(ctx, `SELECT u.name, u.hash, u.role, u.groups, u.created_at, s.expires_at
		FROM sessions s JOIN users u ON u.name = s."user" WHERE s.hash = ? AND s.expires_at > ?`, hash, ms(now)), &expires})
	if errors.Is(err, sql.ErrNoRows) {
		return u, time.Time{}, fmt.Errorf("session: %w", ErrNotFound)
	}
	return u, fromMS(expires), err
}

// extraColumn scans one more column than its caller asks for.
type extraColumn struct {
	scanner
	last any
}

func (a extraColumn) Scan(to ...any) error { return a.scanner.Scan(append(to, a.last)...) }

// EndSession ends a session. Repeating it changes nothing.
func (s *Store) EndSession(ctx context.Context, hash string) error {
	_, err := s.exec(ctx, "DELETE FROM sessions WHERE hash = ?", hash)
	return err
}
