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

// Action is a command to an author's action. The store never makes it ActionExpired by itself:
// its lifetime does not run while no manager does.
type Action struct {
	ID, NodeID, Action string
	Params             json.RawMessage // nil: none, or the command is over
	ParamsBytes        int
	CreatedAt          time.Time
	Life               time.Duration
	Actor              string // who requested it
	Acting             string // the identity with which it was requested
	State              string // api.ActionPending and so on
	DecidedBy, Reason  string // of api.ActionWithdrawn
	SentAt, AckedAt    time.Time
	Success            bool
	ErrorCode, Error   string
	Result             json.RawMessage
}

// Open reports whether the command may be sent now or later, if its lifetime is not over.
func (a Action) Open() bool { return a.State == api.ActionPending || a.State == api.ActionSent }

// API returns the command as the REST API shows it. age is how long a manager has run since it
// was requested.
func (a Action) API(age time.Duration) api.Action {
	v := api.Action{ID: a.ID, NodeID: a.NodeID, Action: a.Action, ParamsBytes: a.ParamsBytes, CreatedAt: a.CreatedAt, ExpiresAt: a.CreatedAt.Add(a.Life), RequestedBy: a.Actor,
		State: a.State, WithdrawnBy: a.DecidedBy, WithdrawReason: a.Reason, SentAt: a.SentAt, AnsweredAt: a.AckedAt, Success: a.Success, ErrorCode: a.ErrorCode, Error: a.Error, Result: a.Result}
	if a.Open() && age >= a.Life {
		v.State = api.ActionExpired
	}
	return v
}

const openAction = " state IN ('pending', 'sent')"

// AddAction adds a pending command with its audit entry. The oldest of the node that are over
// make room, so that the node has at most api.KeptActions.
func (s *Store) AddAction(ctx context.Context, a Action, entry api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		if _, err := tx.exec(ctx, `INSERT INTO actions (id, node_id, action, params, params_bytes, created_at, life_ms, actor, acting, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending')`,
			a.ID, a.NodeID, a.Action, null(a.Params), len(a.Params), ms(a.CreatedAt), a.Life.Milliseconds(), a.Actor, a.Acting); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM actions WHERE node_id = ? AND NOT`+openAction+` AND seq <= (SELECT seq FROM actions WHERE node_id = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)`,
			a.NodeID, a.NodeID, api.KeptActions); err != nil {
			return err
		}
		return addAudit(ctx, tx, entry)
	})
}

const actionColumns = "id, node_id, action, params, params_bytes, created_at, life_ms, actor, acting, state, decided_by, reason, sent_at, acked_at, success, error_code, error, result"

func scanAction(row scanner) (Action, error) {
	var a Action
	var params, result sql.NullString
	var created, life, sent, acked int64
	err := row.Scan(&a.ID, &a.NodeID, &a.Action, &params, &a.ParamsBytes, &created, &life, &a.Actor, &a.Acting, &a.State, &a.DecidedBy, &a.Reason, &sent, &acked, &a.Success, &a.ErrorCode, &a.Error, &result)
	a.Params, a.Result = raw(params), raw(result)
	a.CreatedAt, a.SentAt, a.AckedAt, a.Life = fromMS(created), fromMS(sent), fromMS(acked), time.Duration(life)*time.Millisecond
	return a, unreadable(cmp.Or(err, valid(a.Params, a.Result)))
}

// Actions returns the commands to a node's actions, newest first.
func (s *Store) Actions(ctx context.Context, nodeID string) ([]Action, error) {
	rows, err := s.query(ctx, "SELECT "+actionColumns+" FROM actions WHERE node_id = ? ORDER BY seq DESC", nodeID)
	return list(ctx, rows, err, scanAction)
}

// OpenActions returns those of Actions that are Open, oldest first.
func (s *Store) OpenActions(ctx context.Context, nodeID string) ([]Action, error) {
	rows, err := s.query(ctx, "SELECT "+actionColumns+" FROM actions WHERE node_id = ? AND"+openAction+" ORDER BY seq", nodeID)
	return list(ctx, rows, err, scanAction)
}

// Action returns a command to an action of a node, or ErrNotFound.
func (s *Store) Action(ctx context.Context, nodeID, id string) (Action, error) {
	a, err := scanAction(s.row(ctx, "SELECT "+actionColumns+" FROM actions WHERE id = ? AND node_id = ?", id, nodeID))
	if errors.Is(err, sql.ErrNoRows) {
		return a, fmt.Errorf("command %.80q: %w", id, ErrNotFound)
	}
	return a, err
}

// RecordActionSent records that a command is sent now, or returns ErrNotSendable. The caller
// sends it only if this succeeds.
func (s *Store) RecordActionSent(ctx context.Context, id string, at time.Time) error {
	return s.mark(ctx, id, `UPDATE actions SET sent_at = ?, state = 'sent' WHERE id = ? AND`+openAction+`
		AND EXISTS (SELECT 1 FROM nodes WHERE nodes.id = actions.node_id AND nodes.removed_at = 0 AND nodes.duplicate IS NULL)`, ms(at), id)
}

// RecordActionAck records the answer to a node's command, also a late one. Only the first
// counts: for a repeated one, or an id of another node or of none, it reports false. A command
// that was never sent has no answer.
func (s *Store) RecordActionAck(ctx context.Context, a Action) (bool, error) {
	r, err := s.exec(ctx, `UPDATE actions SET acked_at = ?, success = ?, error_code = ?, error = ?, result = ?, params = NULL, state = 'ended'
		WHERE id = ? AND node_id = ? AND acked_at = 0 AND sent_at != 0`, ms(a.AckedAt), a.Success, a.ErrorCode, a.Error, null(a.Result), a.ID, a.NodeID)
	if err != nil {
		return false, err
	}
	k, err := r.RowsAffected()
	return k > 0, err
}

// ExpireAction makes an open command api.ActionExpired.
func (s *Store) ExpireAction(ctx context.Context, id string) error {
	_, err := s.exec(ctx, "UPDATE actions SET state = 'expired', params = NULL WHERE id = ? AND"+openAction, id)
	return err
}

// WithdrawAction withdraws a command that was never sent, with its audit entry, or returns
// ErrConflict.
func (s *Store) WithdrawAction(ctx context.Context, id, by, reason string, entry api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		r, err := tx.exec(ctx, "UPDATE actions SET state = 'withdrawn', params = NULL, decided_by = ?, reason = ? WHERE id = ? AND state = 'pending' AND sent_at = 0", by, reason, id)
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, fmt.Errorf("command %.80q was sent, or is over: %w", id, ErrConflict))
		}
		return addAudit(ctx, tx, entry)
	})
}

// withdrawActions ends the open commands of a node that is removed.
func withdrawActions(ctx context.Context, tx conn, nodeID, by string) error {
	_, err := tx.exec(ctx, `UPDATE actions SET params = NULL, decided_by = ?, reason = ?, state = CASE WHEN sent_at = 0 THEN 'withdrawn' ELSE 'expired' END WHERE node_id = ? AND`+openAction, by, ReasonRemoved, nodeID)
	return err
}

// RecordActions records the actions that a node announced when it authenticated.
func (s *Store) RecordActions(ctx context.Context, id string, actions []string) error {
	b, err := json.Marshal(append([]string{}, actions...))
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, "UPDATE nodes SET actions = ? WHERE id = ? AND removed_at = 0 AND actions != ?", string(b), id, string(b))
	return err
}
