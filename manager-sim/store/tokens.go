package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// Token is a program's bearer token.
type Token struct {
	ID         string
	Name       string
	Hash       string // of its secret
	Role       string
	Groups     []string // as a User's
	CreatedAt  time.Time
	CreatedBy  string    // a user's name, ByManager or another token's ByToken; "": not known
	ExpiresAt  time.Time // zero: it does not expire
	LastUsedAt time.Time // zero: never
}

// API returns the token as the REST API shows it.
func (t Token) API() api.Token {
	return api.Token{ID: t.ID, Name: t.Name, Role: t.Role, Groups: t.Groups, CreatedAt: t.CreatedAt, CreatedBy: t.CreatedBy, ExpiresAt: t.ExpiresAt, LastUsedAt: t.LastUsedAt}
}

// ByManager is the CreatedBy of tokens that were created with the manager's own token.
// No user can have this name.
const ByManager = "admin token"

// ByToken is the CreatedBy of tokens that were created with a token. No user can have
// this name.
func ByToken(id string) string { return "token " + id }

const tokenColumns = "id, name, hash, role, groups, created_at, created_by, expires_at, last_used_at"

func scanToken(row scanner) (Token, error) {
	var t Token
	var groups string
	var created, expires, used int64
	if err := row.Scan(&t.ID, &t.Name, &t.Hash, &t.Role, &groups, &created, &t.CreatedBy, &expires, &used); err != nil {
		return t, unreadable(err)
	}
	t.CreatedAt, t.ExpiresAt, t.LastUsedAt = fromMS(created), fromMS(expires), fromMS(used)
	return t, unreadable(json.Unmarshal([]byte(groups), &t.Groups))
}

// AddAPIToken adds a program's token. It returns ErrDenied if t.CreatedBy may not create
// tokens any more.
func (s *Store) AddAPIToken(ctx context.Context, t Token, a api.AuditEntry) error {
	groups, err := json.Marshal(append([]string{}, t.Groups...))
	if err != nil {
		return err
	}
	return s.change(ctx, func(tx conn) error {
		if err := checkCreator(ctx, tx, t.CreatedBy); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, "INSERT INTO api_tokens ("+tokenColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			t.ID, t.Name, t.Hash, t.Role, string(groups), ms(t.CreatedAt), t.CreatedBy, ms(t.ExpiresAt), ms(t.LastUsedAt)); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// APIToken finds a token by the hash of its secret, also an expired one, or returns
// ErrNotFound.
func (s *Store) APIToken(ctx context.Context, hash string) (Token, error) {
	t, err := scanToken(s.row(ctx, "SELECT "+tokenColumns+" FROM api_tokens WHERE hash = ?", hash))
	if errors.Is(err, sql.ErrNoRows) {
		return t, fmt.Errorf("token: %w", ErrNotFound)
	}
	return t, err
}

// APITokenByID returns a token, also an expired one, or ErrNotFound, or ErrUnreadable.
func (s *Store) APITokenByID(ctx context.Context, id string) (Token, error) {
	t, err := scanToken(s.row(ctx, "SELECT "+tokenColumns+" FROM api_tokens WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return t, fmt.Errorf("token %.80q: %w", id, ErrNotFound)
	}
	if errors.Is(err, ErrUnreadable) {
		return t, fmt.Errorf("token %.80q: the record %w", id, err)
	}
	return t, err
}

// APITokens returns all tokens, newest first.
func (s *Store) APITokens(ctx context.Context) ([]Token, error) {
	rows, err := s.query(ctx, "SELECT "+tokenColumns+" FROM api_tokens ORDER BY created_at DESC, id")
	return list(ctx, rows, err, scanToken)
}

// RemoveAPIToken removes a token and those that it created, or returns ErrNotFound.
func (s *Store) RemoveAPIToken(ctx context.Context, id string, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, "DELETE FROM api_tokens WHERE id = ?", id)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("token %.80q: %w", id, ErrNotFound))
		}
		if err := removeTokensBy(ctx, tx, ByToken(id), a); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// checkCreator returns ErrDenied if the creator of a token lost the right meanwhile.
func checkCreator(ctx context.Context, tx conn, by string) error {
	var n int
	var err error
	if id, ok := strings.CutPrefix(by, ByToken("")); ok {
		err = tx.row(ctx, "SELECT count(*) FROM api_tokens WHERE id = ?", id).Scan(&n)
	} else if by != "" && by != ByManager {
		err = tx.row(ctx, "SELECT count(*) FROM users WHERE name = ? AND role = ?", by, string(api.SuperAdmin)).Scan(&n)
	} else {
		return nil
	}
	if err == nil && n == 0 {
		err = fmt.Errorf("%s is no longer a super admin: %w", by, ErrDenied)
	}
	return err
}

// removeTokensBy removes the tokens that a user or a token created, and those that
// these created. Each gets an audit entry by the actor of a.
func removeTokensBy(ctx context.Context, tx conn, by string, a api.AuditEntry) error {
	for creators := []string{by}; len(creators) > 0; creators = creators[1:] {
		rows, err := tx.query(ctx, "DELETE FROM api_tokens WHERE created_by = ? RETURNING id, name", creators[0]) // also one that cannot be read
		gone, err := collect(rows, err, func(row scanner) (t Token, err error) { return t, row.Scan(&t.ID, &t.Name) })
		if err != nil {
			return err
		}
		for _, t := range gone {
			details, err := json.Marshal(map[string]string{"id": t.ID, "reason": "it was created by " + creators[0]})
			if err != nil {
				return err
			}
			if err := addAudit(ctx, tx, api.AuditEntry{Time: a.Time, Actor: a.Actor, Action: "token.revoke", Target: t.Name, Details: details}); err != nil {
				return err
			}
			creators = append(creators, ByToken(t.ID))
		}
	}
	return nil
}

// RecordTokenUse records when a token was used.
func (s *Store) RecordTokenUse(ctx context.Context, id string, at time.Time) error {
	_, err := s.exec(ctx, "UPDATE api_tokens SET last_used_at = ? WHERE id = ?", ms(at), id)
	return err
}
