package api

import (
	"slices"
	"time"
)

// Role is what a user or a token may do, in the groups that the role is for.
type Role string

// The roles. Each includes the rights of the ones before it.
const (
	Viewer     Role = "viewer"      // reads
	Operator   Role = "operator"    // upgrades a node
	GroupAdmin Role = "group_admin" // upgrades a group, and moves and removes nodes
	SuperAdmin Role = "super_admin" // groups, users, tokens and the audit trail; always in all groups
)

// Roles returns all roles, the least first.
func Roles() []Role { return []Role{Viewer, Operator, GroupAdmin, SuperAdmin} }

// Includes reports whether the role has the rights of least. An unknown role has none.
func (r Role) Includes(least Role) bool {
	i := slices.Index(Roles(), r)
	return i >= 0 && i >= slices.Index(Roles(), least)
}

// AllGroups in a list of groups means every group, and nodes without a group.
const AllGroups = "*"

// User is a person who signs in.
type User struct {
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Groups    []string  `json:"groups"` // ids of the groups that the role is for, or AllGroups
	CreatedAt time.Time `json:"created_at"`
}

// UserList is the list of users, by name.
type UserList struct {
	Users []User `json:"users"`
	// Unreadable is how many entries were left out because the manager cannot read them.
	Unreadable int `json:"unreadable,omitempty"`
}

// NewUser is the body that adds a user.
type NewUser struct {
	Name     string   `json:"name"`
	Password string   `json:"password"`
	Role     string   `json:"role"`
	Groups   []string `json:"groups,omitempty"` // ids, or AllGroups
}

// UserCreated is the answer to NewUser.
type UserCreated struct {
	Name    string `json:"name"`
	Warning string `json:"warning,omitempty"` // for a person
}

// UserChange is the body that changes a user; nil fields stay as they are.
type UserChange struct {
	Role     *string   `json:"role,omitempty"`
	Groups   *[]string `json:"groups,omitempty"`
	Password *string   `json:"password,omitempty"` // ends the user's sessions
}

// PasswordChange is the body that changes the password of the user who is signed in.
type PasswordChange struct {
	Old string `json:"old"`
	New string `json:"new"`
}

// Token is a program's bearer token, without its secret.
type Token struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Role       string    `json:"role"`
	Groups     []string  `json:"groups"` // as a User's
	CreatedAt  time.Time `json:"created_at"`
	CreatedBy  string    `json:"created_by"`            // "": not known
	ExpiresAt  time.Time `json:"expires_at,omitzero"`   // zero: it does not expire
	LastUsedAt time.Time `json:"last_used_at,omitzero"` // zero: never
}

// TokenList is the list of tokens, newest first.
type TokenList struct {
	Tokens []Token `json:"tokens"`
	// Unreadable is how many entries were left out because the manager cannot read them.
	Unreadable int `json:"unreadable,omitempty"`
}

// NewToken is the body that creates a token.
type NewToken struct {
	Name          string   `json:"name"`
	Role          string   `json:"role"`
	Groups        []string `json:"groups,omitempty"`          // ids, or AllGroups
	ExpiresInSecs int64    `json:"expires_in_secs,omitempty"` // default 90 days
}

// TokenCreated is the answer to NewToken. Only it has the secret.
type TokenCreated struct {
	Token     string    `json:"token"`
	ID        string    `json:"id"`
	ExpiresAt time.Time `json:"expires_at"`
	Warning   string    `json:"warning,omitempty"` // for a person
}
