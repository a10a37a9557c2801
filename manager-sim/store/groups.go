package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// AddGroup adds a group with its audit entry, or returns ErrExists.
func (s *Store) AddGroup(ctx context.Context, g api.Group, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, "INSERT INTO groups VALUES (?, ?, ?) ON CONFLICT DO NOTHING", g.ID, g.Name, ms(g.CreatedAt))
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("group %q: %w", g.Name, ErrExists))
		}
		return addAudit(ctx, tx, a)
	})
}

func scanGroup(row scanner) (api.Group, error) {
	var g api.Group
	var at int64
	err := row.Scan(&g.ID, &g.Name, &at)
	g.CreatedAt = fromMS(at)
	return g, err
}

// Groups returns all groups, by name.
func (s *Store) Groups(ctx context.Context) ([]api.Group, error) {
	rows, err := s.query(ctx, "SELECT id, name, created_at FROM groups ORDER BY name")
	return list(ctx, rows, err, scanGroup)
}

// Group returns a group, or ErrNotFound.
func (s *Store) Group(ctx context.Context, id string) (api.Group, error) {
	g, err := scanGroup(s.row(ctx, "SELECT id, name, created_at FROM groups WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return g, fmt.Errorf("group %q: %w", id, ErrNotFound)
	}
	return g, err
}

// SetGroup moves a node into a group ("": out of any) with its audit entry, or returns
// ErrNotFound. It withdraws what was never sent of a rollout to another group, and applies
// other decisions about the node's commands.
func (s *Store) SetGroup(ctx context.Context, nodeID, groupID string, a api.AuditEntry, changes ...CommandChange) error {
	return s.change(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, "UPDATE nodes SET group_id = ? WHERE id = ? AND removed_at = 0 AND (? = '' OR EXISTS (SELECT 1 FROM groups WHERE id = ?))", groupID, nodeID, groupID, groupID)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("node %q or group %q: %w", nodeID, groupID, ErrNotFound))
		}
		return errors.Join(withdrawMoved(ctx, tx, nodeID, a.Actor, a.Time), changeCommands(ctx, tx, changes), addAudit(ctx, tx, a))
	})
}

// GroupNodes returns the nodes of a group, by id.
func (s *Store) GroupNodes(ctx context.Context, groupID string) ([]Node, error) {
	rows, err := s.query(ctx, "SELECT "+nodeColumns+" FROM nodes WHERE group_id = ? AND removed_at = 0 ORDER BY id", groupID)
	return list(ctx, rows, err, scanNode)
}

// GroupMembers returns the ids of a group's nodes.
func (s *Store) GroupMembers(ctx context.Context, groupID string) (map[string]bool, error) {
	rows, err := s.query(ctx, "SELECT id FROM nodes WHERE group_id = ? AND removed_at = 0", groupID)
	ids, err := collect(rows, err, func(row scanner) (id string, err error) { return id, row.Scan(&id) })
	members := make(map[string]bool, len(ids))
	for _, id := range ids {
		members[id] = true
	}
	return members, err
}
