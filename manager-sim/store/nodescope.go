package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// NodeScope is what decides who may see and command a node. It is known also of a node whose
// record is ErrUnreadable.
type NodeScope struct {
	ID        string
	GroupID   string    // "" for none
	RemovedAt time.Time // zero: it was not removed
}

// SecretHash returns the hash of a node's secret, "" if the node was removed, or ErrNotFound. It
// is known also of a node whose record is ErrUnreadable.
func (s *Store) SecretHash(ctx context.Context, id string) (string, error) {
	var hash string
	err := s.row(ctx, "SELECT secret_hash FROM nodes WHERE id = ?", id).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("node %q: %w", id, ErrNotFound)
	}
	return hash, unreadable(err)
}

// NodeScope returns the scope of a node, also of a removed one, or ErrNotFound.
func (s *Store) NodeScope(ctx context.Context, id string) (NodeScope, error) {
	var n NodeScope
	var removed int64
	err := s.row(ctx, "SELECT id, group_id, removed_at FROM nodes WHERE id = ?", id).Scan(&n.ID, &n.GroupID, &removed)
	n.RemovedAt = fromMS(removed)
	if errors.Is(err, sql.ErrNoRows) {
		return n, fmt.Errorf("node %q: %w", id, ErrNotFound)
	}
	return n, unreadable(err)
}
