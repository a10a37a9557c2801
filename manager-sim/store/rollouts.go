package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// Rollout is a stored rollout. State is a rollout.Rollout as JSON.
type Rollout struct {
	ID        string
	GroupID   string
	Revision  int64 // 0: not stored yet; each SaveRollout adds one
	Active    bool
	State     json.RawMessage
	CreatedAt time.Time
	// Changes are decisions about commands of the rollout. SaveRollout applies withdrawals
	// before it adds new commands, and all of them, also to the new commands, afterwards; they are
	// not stored here.
	Changes []CommandChange
	// Acting, if set, is whose rights the open commands of the rollout have from now on. It is
	// not stored here.
	Acting *Person
}

// Person is whose rights a command has.
type Person struct{ Key, Name string } // of Command.Acting and Command.Actor

// SaveRollout stores a rollout with the new commands, the decisions about commands, and the
// audit entries of the same transition, or nothing. No other method changes a rollout. It returns ErrExists if
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
			result, err = tx.exec(ctx, "UPDATE rollouts SET revision = "+nextRevision+", active = ?, state = ? WHERE id = ? AND "+presentRevision+" = ?", r.Active, string(r.State), r.ID, r.Revision)
		}
		if err != nil {
			return err
		}
		if k, err := result.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("rollout %q: %w", r.ID, taken))
		}
		for _, c := range commands { // addCommand would withdraw them with another reason
			if err := closeFinished(ctx, tx, c.NodeID); err != nil {
				return err
			}
		}
		withdrawals := slices.DeleteFunc(slices.Clone(r.Changes), func(c CommandChange) bool { return c.State != CommandWithdrawn })
		if err := changeCommands(ctx, tx, withdrawals); err != nil {
			return err
		}
		for _, c := range commands {
			if err := addCommand(ctx, tx, c); err != nil {
				return err
			}
		}
		if err := errors.Join(changeCommands(ctx, tx, r.Changes), setActing(ctx, tx, r.ID, r.Acting)); err != nil {
			return err
		}
		for _, a := range audits {
			if err := addAudit(ctx, tx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// A stored revision is never 0, which is that of a Rollout that is not stored yet, and the last
// number is followed by the first one: a damaged one keeps nobody from pausing and aborting.
const (
	storedRevision  = "COALESCE(CAST(revision AS BIGINT), 0)"
	presentRevision = "CASE WHEN " + storedRevision + " = 0 THEN -1 ELSE " + storedRevision + " END"
	nextRevision    = "CASE WHEN " + storedRevision + " < 1 OR " + storedRevision + " = 9223372036854775807 THEN 1 ELSE " + storedRevision + " + 1 END"
)

// rolloutColumns reads something from every row, whatever its columns have: a rollout can always
// be aborted. It reads active as the index that allows one active rollout per group does: in
// SQLite any number but 0 is true.
const rolloutColumns = "id, COALESCE(CAST(group_id AS TEXT), ''), " + presentRevision + ", CASE WHEN active THEN 1 ELSE 0 END, COALESCE(CAST(state AS TEXT), ''), COALESCE(CAST(created_at AS BIGINT), 0)"

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
	return list(ctx, rows, err, scanRollout)
}

// EndedRollouts returns the rollouts that have ended and have given a node a command, newest
// first, at most limit.
func (s *Store) EndedRollouts(ctx context.Context, nodeID string, limit int) ([]Rollout, error) {
	rows, err := s.query(ctx, "SELECT "+rolloutColumns+` FROM rollouts WHERE NOT active
		AND id IN (SELECT rollout_id FROM commands WHERE node_id = ? AND rollout_id != '') ORDER BY created_at DESC, id LIMIT ?`, nodeID, limit)
	return list(ctx, rows, err, scanRollout)
}
