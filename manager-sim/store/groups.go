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

// Rollout is a stored rollout: State is what package rollout made of it.
type Rollout struct {
	ID        string
	GroupID   string
	Revision  int64 // 0: not stored yet; goes up by one with each SaveRollout
	Active    bool
	State     json.RawMessage
	CreatedAt time.Time
}

// ErrExists says that the name is taken, or that the group has an active
// rollout; ErrConflict, that somebody else changed the rollout meanwhile.
var (
	ErrExists   = errors.New("exists already")
	ErrConflict = errors.New("changed meanwhile")
	// ErrNotMarked says that a node is not marked as two devices with one identity.
	ErrNotMarked = errors.New("the node is not marked as two devices with one identity")
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
	return collect(rows, err, scanGroup)
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
// ErrNotFound.
func (s *Store) SetGroup(ctx context.Context, nodeID, groupID string, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, "UPDATE nodes SET group_id = ? WHERE id = ? AND removed_at = 0 AND (? = '' OR EXISTS (SELECT 1 FROM groups WHERE id = ?))", groupID, nodeID, groupID, groupID)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("node %q or group %q: %w", nodeID, groupID, ErrNotFound))
		}
		return addAudit(ctx, tx, a)
	})
}

// GroupNodes returns the nodes of a group, by id.
func (s *Store) GroupNodes(ctx context.Context, groupID string) ([]Node, error) {
	rows, err := s.query(ctx, "SELECT "+nodeColumns+" FROM nodes WHERE group_id = ? AND removed_at = 0 ORDER BY id", groupID)
	return collect(rows, err, scanNode)
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

// SaveRollout stores a rollout with the commands and audit entries of the same
// transition, or nothing. No other method changes a rollout. It returns ErrExists if
// the group has another active rollout, and ErrConflict if r.Revision is not the stored
// one.
func (s *Store) SaveRollout(ctx context.Context, r Rollout, commands []Command, audits []api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		var result sql.Result
		var err error
		taken := ErrConflict
		if r.Revision == 0 {
			taken = ErrExists
			result, err = tx.exec(ctx, "INSERT INTO rollouts VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO NOTHING", r.ID, r.GroupID, r.Active, string(r.State), ms(r.CreatedAt))
		} else {
			result, err = tx.exec(ctx, "UPDATE rollouts SET revision = revision + 1, active = ?, state = ? WHERE id = ? AND revision = ?", r.Active, string(r.State), r.ID, r.Revision)
		}
		if err != nil {
			return err
		}
		if k, err := result.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("rollout %q: %w", r.ID, taken))
		}
		for _, c := range commands {
			if err := addCommand(ctx, tx, c); err != nil {
				return err
			}
		}
		for _, a := range audits {
			if err := addAudit(ctx, tx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

const rolloutColumns = "id, group_id, revision, active, state, created_at"

func scanRollout(row scanner) (Rollout, error) {
	var r Rollout
	var state string
	var at int64
	err := row.Scan(&r.ID, &r.GroupID, &r.Revision, &r.Active, &state, &at)
	r.State, r.CreatedAt = json.RawMessage(state), fromMS(at)
	return r, err
}

// Rollout returns a rollout, or ErrNotFound.
func (s *Store) Rollout(ctx context.Context, id string) (Rollout, error) {
	r, err := scanRollout(s.row(ctx, "SELECT "+rolloutColumns+" FROM rollouts WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("rollout %q: %w", id, ErrNotFound)
	}
	return r, err
}

// Rollouts returns rollouts, newest first: of one group or, with "", of all; at most
// limit, or all if limit is negative.
func (s *Store) Rollouts(ctx context.Context, groupID string, activeOnly bool, limit int) ([]Rollout, error) {
	rows, err := s.query(ctx, "SELECT "+rolloutColumns+` FROM rollouts
		WHERE (? = '' OR group_id = ?) AND (NOT ? OR active) ORDER BY created_at DESC, id LIMIT ?`, groupID, groupID, activeOnly, all(limit))
	return collect(rows, err, scanRollout)
}
