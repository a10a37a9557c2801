package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// Node is a registered node.
type Node struct {
	ID           string
	DeviceType   string
	SecretHash   string // SHA-256 of its secret, hex
	Version      string // at its last authentication or health beat
	Capabilities []string
	Upgrade      json.RawMessage // of its last health beat; nil if it had none
	RegisteredAt time.Time
	LastSeen     time.Time
	GroupID      string        // "" for none
	Health       string        // of its last health beat: wire.StatusOK or wire.StatusDegraded; "" if it had none
	Unavailable  string        // why it offered no upgrades at its last health beat; "": it gave no reason
	Warnings     []string      // of its last health beat
	Address      string        // of its last connection
	Duplicate    api.Duplicate // zero: one device uses its identity
	RemovedAt    time.Time     // zero: it was not removed
	Trial        string        // of its last health beat, as wire.Health.TrialState
	Hold         *api.Hold     // of its last health beat: what an unproven version waits for
	ProgressAt   time.Time     // when the progress of an upgrade that it reports last changed; zero: never
	Features     []string      // that it announced when it authenticated last: wire.FeatureWithdraw
	Manifest     string        // SHA-256 of the manifest of Version, as the node reports; "": it reports none
	Actions      []string      // of its author, that it announced when it authenticated last
	HealthAt     time.Time     // of its last health beat; zero: none since it authenticated at Version
}

const nodeColumns = "id, device_type, secret_hash, version, capabilities, upgrade, registered_at, last_seen, group_id, health, unavailable, address, duplicate, removed_at, warnings, trial, hold, health_at, features, manifest_sha256, progress_at, actions"

func scanNode(row scanner) (Node, error) {
	var n Node
	var caps, warnings, features, actions string
	var up, duplicate, hold sql.NullString
	var reg, seen, removed, healthAt, progressAt int64
	if err := row.Scan(&n.ID, &n.DeviceType, &n.SecretHash, &n.Version, &caps, &up, &reg, &seen, &n.GroupID,
		&n.Health, &n.Unavailable, &n.Address, &duplicate, &removed, &warnings, &n.Trial, &hold, &healthAt, &features, &n.Manifest, &progressAt, &actions); err != nil {
		return n, unreadable(err)
	}
	n.Upgrade, n.RegisteredAt, n.LastSeen, n.RemovedAt, n.HealthAt = raw(up), fromMS(reg), fromMS(seen), fromMS(removed), fromMS(healthAt)
	n.ProgressAt = fromMS(progressAt)
	if hold.Valid {
		if err := json.Unmarshal([]byte(hold.String), &n.Hold); err != nil {
			return n, unreadable(err)
		}
	}
	if duplicate.Valid {
		if err := json.Unmarshal([]byte(duplicate.String), &n.Duplicate); err != nil {
			return n, unreadable(err)
		}
	}
	return n, unreadable(errors.Join(json.Unmarshal([]byte(caps), &n.Capabilities), json.Unmarshal([]byte(warnings), &n.Warnings), json.Unmarshal([]byte(features), &n.Features), json.Unmarshal([]byte(actions), &n.Actions), valid(n.Upgrade)))
}

// Node returns a node, also a removed one, or ErrNotFound, or ErrUnreadable.
func (s *Store) Node(ctx context.Context, id string) (Node, error) {
	n, err := scanNode(s.row(ctx, "SELECT "+nodeColumns+" FROM nodes WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return n, fmt.Errorf("node %q: %w", id, ErrNotFound)
	}
	if errors.Is(err, ErrUnreadable) {
		return n, fmt.Errorf("node %q: its record %w", id, err)
	}
	return n, err
}

// Nodes returns the nodes that were not removed, by id.
func (s *Store) Nodes(ctx context.Context) ([]Node, error) {
	rows, err := s.query(ctx, "SELECT "+nodeColumns+" FROM nodes WHERE removed_at = 0 ORDER BY id")
	return list(ctx, rows, err, scanNode)
}

// RemovedNodes returns the removed nodes, by id.
func (s *Store) RemovedNodes(ctx context.Context) ([]Node, error) {
	rows, err := s.query(ctx, "SELECT "+nodeColumns+" FROM nodes WHERE removed_at != 0 ORDER BY id")
	return list(ctx, rows, err, scanNode)
}

// RemoveNode revokes the secret of a node, withdraws its open command, and removes it from
// the lists, also if its record is ErrUnreadable. Its history stays. It returns ErrNotFound for a node that was removed already.
func (s *Store) RemoveNode(ctx context.Context, id string, at time.Time, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, "UPDATE nodes SET removed_at = ?, secret_hash = '', capabilities = '[]', warnings = '[]', upgrade = NULL, duplicate = NULL, trial = '', hold = NULL, features = '[]', actions = '[]' WHERE id = ? AND removed_at = 0", ms(at), id)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("node %q: %w, or removed already", id, ErrNotFound))
		}
		if err := errors.Join(withdrawOpen(ctx, tx, id, a.Actor, ReasonRemoved, at), withdrawActions(ctx, tx, id, a.Actor)); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// MarkDuplicate records that two devices use a node's identity. It reports whether
// the node was not marked before.
func (s *Store) MarkDuplicate(ctx context.Context, id string, d api.Duplicate) (bool, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return false, err
	}
	r, err := s.exec(ctx, "UPDATE nodes SET duplicate = ? WHERE id = ? AND duplicate IS NULL AND removed_at = 0", string(b), id)
	if err != nil {
		return false, err
	}
	k, err := r.RowsAffected()
	return k > 0, err
}

// ClearDuplicate ends the mark of MarkDuplicate, or returns ErrNotMarked.
func (s *Store) ClearDuplicate(ctx context.Context, id string, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, "UPDATE nodes SET duplicate = NULL WHERE id = ? AND duplicate IS NOT NULL", id)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return cmp.Or(err, ErrNotMarked)
		}
		return addAudit(ctx, tx, a)
	})
}

// SeenBetween reports whether a node was seen for the last time between two times.
func (s *Store) SeenBetween(ctx context.Context, from, to time.Time) (bool, error) {
	var seen bool
	err := s.row(ctx, "SELECT EXISTS (SELECT 1 FROM nodes WHERE last_seen BETWEEN ? AND ?)", ms(from), ms(to)).Scan(&seen)
	return seen, err
}

// RecordHealth records a health beat at n.LastSeen: version, capabilities, upgrade,
// health, warnings, trial, hold and manifest of n, and n.ProgressAt unless that is zero.
func (s *Store) RecordHealth(ctx context.Context, n Node) error {
	caps, err := json.Marshal(append([]string{}, n.Capabilities...))
	if err != nil {
		return err
	}
	warnings, err := json.Marshal(append([]string{}, n.Warnings...))
	if err != nil {
		return err
	}
	var hold json.RawMessage
	if n.Hold != nil {
		if hold, err = json.Marshal(n.Hold); err != nil {
			return err
		}
	}
	progress := ms(n.ProgressAt) // 0: as before
	_, err = s.exec(ctx, "UPDATE nodes SET progress_at = CASE WHEN CAST(? AS BIGINT) > 0 THEN CAST(? AS BIGINT) ELSE progress_at END, version = ?, last_seen = ?, health_at = ?, capabilities = ?, upgrade = ?, health = ?, unavailable = ?, warnings = ?, trial = ?, hold = ?, manifest_sha256 = ? WHERE id = ? AND removed_at = 0",
		progress, progress, n.Version, ms(n.LastSeen), ms(n.LastSeen), string(caps), null(n.Upgrade), n.Health, n.Unavailable, string(warnings), n.Trial, null(hold), n.Manifest, n.ID)
	return err
}

// RecordConnect records that a node authenticated at a version from an address. If the
// version is another one, the trial ends, and HealthAt is zero until the next health beat:
// the node has not reported yet whether this version is on trial. features are what it
// announced. It returns ErrDenied if the node was removed.
func (s *Store) RecordConnect(ctx context.Context, id, version, address string, at time.Time, features ...string) error {
	announced, err := json.Marshal(append([]string{}, features...))
	if err != nil {
		return err
	}
	return s.tx(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, `UPDATE nodes SET trial = CASE WHEN version = ? THEN trial ELSE '' END, hold = CASE WHEN version = ? THEN hold END,
			health_at = CASE WHEN version = ? THEN health_at ELSE 0 END,
			manifest_sha256 = CASE WHEN version = ? THEN manifest_sha256 ELSE '' END, version = ?, last_seen = ?, address = ?, features = ? WHERE id = ? AND removed_at = 0`,
			version, version, version, version, version, ms(at), address, string(announced), id)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("node %q was removed: %w", id, ErrDenied))
		}
		return addConnection(ctx, tx, id, api.Connection{Time: at, State: api.Authenticated, Version: version})
	})
}

// RecordManifest records the SHA-256 of the manifest that a node reports when it authenticates
// at a version.
func (s *Store) RecordManifest(ctx context.Context, id, version, sha256 string) error {
	_, err := s.exec(ctx, "UPDATE nodes SET manifest_sha256 = ? WHERE id = ? AND version = ? AND removed_at = 0", sha256, id, version)
	return err
}

// CheckConnect returns an error if RecordConnect would fail now, as with a full disk. It
// writes a connection and removes it again, so that nothing about the node changes.
func (s *Store) CheckConnect(ctx context.Context, id string) error {
	return s.tx(ctx, func(tx conn) error {
		var seq int64
		err := tx.row(ctx, "INSERT INTO connections (node_id, time, state, version) VALUES (?, 0, '', '') RETURNING seq", id).Scan(&seq)
		if err != nil {
			return err
		}
		_, err = tx.exec(ctx, "DELETE FROM connections WHERE seq = ?", seq)
		return err
	})
}
