// Package store keeps what the manager must remember: nodes, their commands and
// events, groups, rollouts, users, tokens and the audit trail. It uses SQLite or
// PostgreSQL. Types that the REST API shows unchanged are those of package api.
//
// The store is the truth: a manager that is killed at any moment continues from it.
// A change and its audit entry are made in one transaction. Audit entries are never
// changed or deleted. Of a node that reports very many events, the oldest are deleted.
//
// The package decides nothing about upgrades, and checks no rights.
package store

import "errors"

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("not found")
	ErrDenied   = errors.New("denied")
	// ErrExists means that the name is taken, or that the group has an active rollout.
	ErrExists = errors.New("exists already")
	// ErrConflict means that another change came first.
	ErrConflict = errors.New("changed meanwhile")
	// ErrUnreadable means that a row is not what this program writes. Lists leave it out.
	ErrUnreadable = errors.New("cannot be read")
	// ErrNotMarked means that a node is not marked as a duplicate.
	ErrNotMarked = errors.New("the node is not marked as two devices with one identity")
	// ErrLastSuperAdmin means that no super admin would remain.
	ErrLastSuperAdmin = errors.New("the last super admin can be neither removed nor given another role; give another user the role super_admin first")
	// ErrClaimed means that a super admin exists.
	ErrClaimed = errors.New("there is a super admin")
	// ErrRepeated means that the request of a Once was carried out before.
	ErrRepeated = errors.New("carried out already")
)
