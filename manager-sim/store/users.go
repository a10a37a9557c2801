package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// User is somebody who signs in, or, with an empty Name, a program's token.
type User struct {
	Name      string    `json:"name"`
	Hash      string    `json:"-"` // of the password: an argon2id string
	Role      string    `json:"role"`
	Groups    []string  `json:"groups"` // ids of the groups that the role is for; "*": all
	CreatedAt time.Time `json:"created_at"`
}

func (s *database) AddUser(ctx context.Context, u User, a Audit) error {
	groups, err := json.Marshal(append([]string{}, u.Groups...))
	if err != nil {
		return err
	}
	return s.change(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, "INSERT INTO users VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", u.Name, u.Hash, u.Role, string(groups), ms(u.CreatedAt))
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("user %q: %w", u.Name, ErrExists))
		}
		return addAudit(ctx, tx, a)
	})
}

func (s *database) RemoveUser(ctx context.Context, name string, a Audit) error {
	return s.change(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, "DELETE FROM users WHERE name = ?", name)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("user %q: %w", name, ErrNotFound))
		}
		return addAudit(ctx, tx, a)
	})
}

func scanUser(row scanner) (User, error) {
	var u User
	var groups string
	var at int64
	if err := row.Scan(&u.Name, &u.Hash, &u.Role, &groups, &at); err != nil {
		return u, err
	}
	u.CreatedAt = fromMS(at)
	return u, json.Unmarshal([]byte(groups), &u.Groups)
}

func (s *database) User(ctx context.Context, name string) (User, error) {
	u, err := scanUser(s.row(ctx, "SELECT name, hash, role, groups, created_at FROM users WHERE name = ?", name))
	if errors.Is(err, sql.ErrNoRows) {
		return u, fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	return u, err
}

func (s *database) Users(ctx context.Context) ([]User, error) {
	rows, err := s.query(ctx, "SELECT name, hash, role, groups, created_at FROM users ORDER BY name")
	return collect(rows, err, scanUser)
}

func (s *database) AddSession(ctx context.Context, hash, user string, expires time.Time) error {
	return s.tx(ctx, func(tx conn) error {
		if _, err := tx.exec(ctx, "DELETE FROM sessions WHERE expires_at < ?", ms(time.Now())); err != nil {
			return err
		}
		_, err := tx.exec(ctx, "INSERT INTO sessions VALUES (?, ?, ?)", hash, user, ms(expires))
		return err
	})
}

func (s *database) SessionUser(ctx context.Context, hash string, now time.Time) (User, error) {
	u, err := scanUser(s.row(ctx, `SELECT u.name, u.hash, u.role, u.groups, u.created_at
		FROM sessions s JOIN users u ON u.name = s."user" WHERE s.hash = ? AND s.expires_at > ?`, hash, ms(now)))
	if errors.Is(err, sql.ErrNoRows) {
		return u, fmt.Errorf("session: %w", ErrNotFound)
	}
	return u, err
}

func (s *database) EndSession(ctx context.Context, hash string) error {
	_, err := s.exec(ctx, "DELETE FROM sessions WHERE hash = ?", hash)
	return err
}

func (s *database) AddAPIToken(ctx context.Context, hash string, u User, a Audit) error {
	groups, err := json.Marshal(append([]string{}, u.Groups...))
	if err != nil {
		return err
	}
	return s.change(ctx, func(tx conn) error {
		if _, err := tx.exec(ctx, "INSERT INTO api_tokens VALUES (?, ?, ?, ?, ?)", hash, u.Name, u.Role, string(groups), ms(u.CreatedAt)); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

func (s *database) APIToken(ctx context.Context, hash string) (User, error) {
	u, err := scanUser(s.row(ctx, "SELECT name, '', role, groups, created_at FROM api_tokens WHERE hash = ?", hash))
	if errors.Is(err, sql.ErrNoRows) {
		return u, fmt.Errorf("token: %w", ErrNotFound)
	}
	return u, err
}

func (s *database) AddAudit(ctx context.Context, a Audit) error {
	return s.tx(ctx, func(tx conn) error { return addAudit(ctx, tx, a) })
}
