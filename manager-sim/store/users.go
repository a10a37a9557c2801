package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// User is a person who signs in.
type User struct {
	Name      string
	Hash      string // of the password: an argon2id string
	Role      string
	Groups    []string // ids of the groups that the role is for, or api.AllGroups
	CreatedAt time.Time
}

// API returns the user as the REST API shows it.
func (u User) API() api.User {
	return api.User{Name: u.Name, Role: u.Role, Groups: u.Groups, CreatedAt: u.CreatedAt}
}

// UserChange changes a user; nil fields stay as they are.
type UserChange struct {
	Role   *string
	Groups *[]string
	// Hash is of the new password. It ends all sessions of the user except KeepSession.
	Hash        *string
	KeepSession string // hash of a session
	// OldHash, if set, must be of the present password; otherwise the change returns
	// ErrConflict.
	OldHash string
}

// AddUser adds a user, or returns ErrExists.
func (s *Store) AddUser(ctx context.Context, u User, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error { return addUser(ctx, tx, u, a) })
}

// AddFirstSuperAdmin adds a super admin, or returns ErrClaimed if one exists.
func (s *Store) AddFirstSuperAdmin(ctx context.Context, u User, a api.AuditEntry) error {
	u.Role = string(api.SuperAdmin)
	return s.change(ctx, func(tx conn) error {
		if n, err := superAdmins(ctx, tx); err != nil {
			return err
		} else if n > 0 {
			return ErrClaimed
		}
		return addUser(ctx, tx, u, a)
	})
}

func addUser(ctx context.Context, tx conn, u User, a api.AuditEntry) error {
	groups, err := json.Marshal(append([]string{}, u.Groups...))
	if err != nil {
		return err
	}
	r, err := tx.exec(ctx, "INSERT INTO users (name, hash, role, groups, created_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
		u.Name, u.Hash, u.Role, string(groups), ms(u.CreatedAt))
	if err != nil {
		return err
	}
	if k, err := r.RowsAffected(); err != nil || k == 0 {
		return errors.Join(err, fmt.Errorf("user %q: %w", u.Name, ErrExists))
	}
	return addAudit(ctx, tx, a)
}

func superAdmins(ctx context.Context, c conn) (n int, err error) {
	err = c.row(ctx, "SELECT count(*) FROM users WHERE role = ?", string(api.SuperAdmin)).Scan(&n)
	return n, err
}

// HasSuperAdmin reports whether a super admin exists.
func (s *Store) HasSuperAdmin(ctx context.Context) (bool, error) {
	n, err := superAdmins(ctx, s.conn)
	return n > 0, err
}

// endSuperAdmin removes the tokens that a super admin created. It returns
// ErrLastSuperAdmin if no super admin remains.
func endSuperAdmin(ctx context.Context, tx conn, name string, a api.AuditEntry) error {
	if n, err := superAdmins(ctx, tx); err != nil {
		return err
	} else if n == 0 {
		return fmt.Errorf("user %q: %w", name, ErrLastSuperAdmin)
	}
	return removeTokensBy(ctx, tx, name, a)
}

// RemoveUser removes a user, its sessions, and the tokens that it created. It returns
// ErrNotFound, or ErrLastSuperAdmin if no super admin would remain. The record may be ErrUnreadable.
func (s *Store) RemoveUser(ctx context.Context, name string, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		u, err := user(ctx, tx, name)
		if err != nil && !errors.Is(err, ErrUnreadable) { // then it has what could be read
			return err
		}
		if _, err := tx.exec(ctx, "DELETE FROM users WHERE name = ?", name); err != nil {
			return err
		}
		if u.Role == string(api.SuperAdmin) {
			if err := endSuperAdmin(ctx, tx, name, a); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, a)
	})
}

// UpdateUser changes a user and returns it. It returns ErrNotFound, or
// ErrLastSuperAdmin if no super admin would remain. A user who is no longer super
// admin loses the tokens that it created. New groups repair those that are ErrUnreadable.
func (s *Store) UpdateUser(ctx context.Context, name string, c UserChange, a api.AuditEntry) (User, error) {
	var u User
	err := s.change(ctx, func(tx conn) error {
		before, err := user(ctx, tx, name)
		if given := c.Groups != nil && before.Role != ""; err != nil && !(errors.Is(err, ErrUnreadable) && given) { // which repairs the record
			return err
		}
		if c.OldHash != "" && c.OldHash != before.Hash {
			return fmt.Errorf("user %q: the password was changed meanwhile: %w", name, ErrConflict)
		}
		u = before
		if c.Role != nil {
			u.Role = *c.Role
		}
		if c.Groups != nil {
			u.Groups = append([]string{}, *c.Groups...)
		}
		if c.Hash != nil {
			u.Hash = *c.Hash
			if _, err := tx.exec(ctx, `DELETE FROM sessions WHERE "user" = ? AND hash != ?`, name, c.KeepSession); err != nil {
				return err
			}
		}
		groups, err := json.Marshal(u.Groups)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, "UPDATE users SET hash = ?, role = ?, groups = ? WHERE name = ?", u.Hash, u.Role, string(groups), name); err != nil {
			return err
		}
		if before.Role == string(api.SuperAdmin) && u.Role != string(api.SuperAdmin) {
			if err := endSuperAdmin(ctx, tx, name, a); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, a)
	})
	return u, err
}

const userColumns = "name, hash, role, groups, created_at"

func scanUser(row scanner) (User, error) {
	var u User
	var groups string
	var at int64
	if err := row.Scan(&u.Name, &u.Hash, &u.Role, &groups, &at); err != nil {
		return u, unreadable(err)
	}
	u.CreatedAt = fromMS(at)
	return u, unreadable(json.Unmarshal([]byte(groups), &u.Groups))
}

func user(ctx context.Context, c conn, name string) (User, error) {
	u, err := scanUser(c.row(ctx, "SELECT "+userColumns+" FROM users WHERE name = ?", name))
	if errors.Is(err, sql.ErrNoRows) {
		return u, fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	if errors.Is(err, ErrUnreadable) {
		return u, fmt.Errorf("user %q: the record %w", name, err)
	}
	return u, err
}

// User returns a user, or ErrNotFound, or ErrUnreadable.
func (s *Store) User(ctx context.Context, name string) (User, error) {
	return user(ctx, s.conn, name)
}

// Users returns all users, by name.
func (s *Store) Users(ctx context.Context) ([]User, error) {
	rows, err := s.query(ctx, "SELECT "+userColumns+" FROM users ORDER BY name")
	return list(ctx, rows, err, scanUser)
}
