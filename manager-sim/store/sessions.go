package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// Session is that of somebody who signed in.
type Session struct {
	Hash         string // of its secret
	User         string
	PasswordHash string // with which the user signed in
	Source       string // from where
	Expires      time.Time
}

const (
	// SignInsKept is how long a source counts as one of the user's own.
	SignInsKept = 30 * 24 * time.Hour
	// sourcesKept bounds the sources of one user; the oldest are forgotten.
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
			return errors.Join(err, fmt.Errorf("user %q has another password by now: %w", n.User, ErrConflict))
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
	u, err := scanUser(also{s.row(ctx, `SELECT u.name, u.hash, u.role, u.groups, u.created_at, s.expires_at
		FROM sessions s JOIN users u ON u.name = s."user" WHERE s.hash = ? AND s.expires_at > ?`, hash, ms(now)), &expires})
	if errors.Is(err, sql.ErrNoRows) {
		return u, time.Time{}, fmt.Errorf("session: %w", ErrNotFound)
	}
	return u, fromMS(expires), err
}

// also scans one column more than it is asked for.
type also struct {
	scanner
	last any
}

func (a also) Scan(to ...any) error { return a.scanner.Scan(append(to, a.last)...) }

// EndSession ends a session. Repeating it changes nothing.
func (s *Store) EndSession(ctx context.Context, hash string) error {
	_, err := s.exec(ctx, "DELETE FROM sessions WHERE hash = ?", hash)
	return err
}
