package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// AddToken makes a registration token valid, by its hash. Repeating it changes
// nothing.
func (s *Store) AddToken(ctx context.Context, hash string) error {
	_, err := s.exec(ctx, "INSERT INTO tokens VALUES (?) ON CONFLICT DO NOTHING", hash)
	return err
}

// Register adds a node if the registration token is valid, and returns ErrDenied
// otherwise. A token registers any number of nodes.
func (s *Store) Register(ctx context.Context, token string, n Node) error {
	features, err := json.Marshal(append([]string{}, n.Features...))
	if err != nil {
		return err
	}
	return s.tx(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, `INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, upgrade, registered_at, last_seen, address, features)
			SELECT ?, ?, ?, ?, '[]', NULL, CAST(? AS BIGINT), CAST(? AS BIGINT), ?, ? FROM tokens WHERE hash = ?`,
			n.ID, n.DeviceType, n.SecretHash, n.Version, ms(n.RegisteredAt), ms(n.LastSeen), n.Address, string(features), token)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, ErrDenied)
		}
		return addConnection(ctx, tx, n.ID, api.Connection{Time: n.LastSeen, State: api.Authenticated, Version: n.Version})
	})
}

// AcceptNode adds a node with its own credentials. It returns ErrExists, or ErrNotFound
// if the group does not exist.
func (s *Store) AcceptNode(ctx context.Context, n Node, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		if n.GroupID != "" {
			var k int
			if err := tx.row(ctx, "SELECT count(*) FROM groups WHERE id = ?", n.GroupID).Scan(&k); err != nil || k == 0 {
				return errors.Join(err, fmt.Errorf("group %.80q: %w", n.GroupID, ErrNotFound))
			}
		}
		r, err := tx.exec(ctx, `INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, registered_at, last_seen, group_id, address)
			VALUES (?, ?, ?, ?, '[]', ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			n.ID, n.DeviceType, n.SecretHash, n.Version, ms(n.RegisteredAt), ms(n.LastSeen), n.GroupID, n.Address)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("node %q: %w", n.ID, ErrExists))
		}
		return addAudit(ctx, tx, a)
	})
}
