package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// RoleSuperAdmin is the role of which one user at least must be left.
const RoleSuperAdmin = "super_admin"

// Errors of changes to users.
var (
	// ErrLastSuperAdmin says that nobody could administer the manager afterwards.
	ErrLastSuperAdmin = errors.New("the last super admin can be neither removed nor given another role; give another user the role super_admin first")
	// ErrClaimed says that there is a super admin.
	ErrClaimed = errors.New("there is a super admin")
)

// User is somebody who signs in.
type User struct {
	Name      string    `json:"name"`
	Hash      string    `json:"-"` // of the password: an argon2id string
	Role      string    `json:"role"`
	Groups    []string  `json:"groups"` // ids of the groups that the role is for; "*": all
	CreatedAt time.Time `json:"created_at"`
}

// UserChange is a change of a user; nil fields stay as they are.
type UserChange struct {
	Role   *string
	Groups *[]string
	// Hash is the new password's. It ends the user's sessions but KeepSession.
	Hash        *string
	KeepSession string // hash of a session
	// OldHash, if set, must be the present password's: otherwise the change fails
	// with ErrConflict.
	OldHash string
}

func (s *database) AddUser(ctx context.Context, u User, a Audit) error {
	return s.change(ctx, func(tx conn) error { return addUser(ctx, tx, u, a) })
}

func (s *database) AddFirstSuperAdmin(ctx context.Context, u User, a Audit) error {
	u.Role = RoleSuperAdmin
	return s.change(ctx, func(tx conn) error {
		if n, err := superAdmins(ctx, tx); err != nil {
			return err
		} else if n > 0 {
			return ErrClaimed
		}
		return addUser(ctx, tx, u, a)
	})
}

func addUser(ctx context.Context, tx conn, u User, a Audit) error {
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
	err = c.row(ctx, "SELECT count(*) FROM users WHERE role = ?", RoleSuperAdmin).Scan(&n)
	return n, err
}

func (s *database) HasSuperAdmin(ctx context.Context) (bool, error) {
	n, err := superAdmins(ctx, s.conn)
	return n > 0, err
}

// lostSuperAdmin ends what a user made as super admin, and refuses the change if
// the user was the last one.
func lostSuperAdmin(ctx context.Context, tx conn, name string, a Audit) error {
	if n, err := superAdmins(ctx, tx); err != nil {
		return err
	} else if n == 0 {
		return fmt.Errorf("user %q: %w", name, ErrLastSuperAdmin)
	}
	return removeTokensBy(ctx, tx, name, a)
}

func (s *database) RemoveUser(ctx context.Context, name string, a Audit) error {
	return s.change(ctx, func(tx conn) error {
		u, err := user(ctx, tx, name)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, "DELETE FROM users WHERE name = ?", name); err != nil {
			return err
		}
		if u.Role == RoleSuperAdmin {
			if err := lostSuperAdmin(ctx, tx, name, a); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, a)
	})
}

func (s *database) UpdateUser(ctx context.Context, name string, c UserChange, a Audit) (User, error) {
	var u User
	err := s.change(ctx, func(tx conn) error {
		before, err := user(ctx, tx, name)
		if err != nil {
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
		if before.Role == RoleSuperAdmin && u.Role != RoleSuperAdmin {
			if err := lostSuperAdmin(ctx, tx, name, a); err != nil {
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
		return u, err
	}
	u.CreatedAt = fromMS(at)
	return u, json.Unmarshal([]byte(groups), &u.Groups)
}

func user(ctx context.Context, c conn, name string) (User, error) {
	u, err := scanUser(c.row(ctx, "SELECT "+userColumns+" FROM users WHERE name = ?", name))
	if errors.Is(err, sql.ErrNoRows) {
		return u, fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	return u, err
}

func (s *database) User(ctx context.Context, name string) (User, error) {
	return user(ctx, s.conn, name)
}

func (s *database) Users(ctx context.Context) ([]User, error) {
	rows, err := s.query(ctx, "SELECT "+userColumns+" FROM users ORDER BY name")
	return collect(rows, err, scanUser)
}

func (s *database) AddAudit(ctx context.Context, a Audit) error {
	return s.tx(ctx, func(tx conn) error { return addAudit(ctx, tx, a) })
}
