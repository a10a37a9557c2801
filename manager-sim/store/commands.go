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

// Command is one that was given to a node.
type Command struct {
	ID        string
	NodeID    string
	Version   string
	Channel   string
	Action    json.RawMessage // as it is sent
	CreatedAt time.Time
	SentAt    time.Time // the last time; zero: never
	AckedAt   time.Time // zero: not acknowledged
	Success   bool
	ErrorCode string
	Error     string
	Data      json.RawMessage
	Limit     time.Duration // from SentAt, or from the node's last progress, to the outcome; 0: the default
	Actor     string        // who requested it; "" for a command of an earlier version
	State     CommandState
	RolloutID string // "": requested for this node
	// Acting is the identity with which it was requested: its rights are checked again before
	// it is sent. "": not known.
	Acting string
	// Of a withdrawal: when it was decided, when it was sent to the node for the last time, and
	// when the node answered. DecidedBy and Reason also belong to CommandHeld.
	WithdrawnAt, WithdrawSentAt, WithdrawAckedAt time.Time
	DecidedBy, Reason                            string
	// Replaces is the id of a command that AddCommand supersedes if it was not sent yet;
	// it is not stored.
	Replaces string
	// Repair is whether Action declares the version the repair; it is not stored.
	Repair bool
}

// CommandLife is the age up to which a command is sent that its node has not
// acknowledged.
const CommandLife = 24 * time.Hour

// API returns the command as the REST API shows it.
func (c Command) API() api.Command {
	return api.Command{ID: c.ID, NodeID: c.NodeID, Version: c.Version, Channel: c.Channel, Action: c.Action, CreatedAt: c.CreatedAt, SentAt: c.SentAt,
		AckedAt: c.AckedAt, Success: c.Success, ErrorCode: c.ErrorCode, Error: c.Error, Data: c.Data, Actor: c.Actor, State: string(c.State), RolloutID: c.RolloutID,
		WithdrawnAt: c.WithdrawnAt, WithdrawnBy: c.DecidedBy, WithdrawReason: c.Reason, WithdrawAckedAt: c.WithdrawAckedAt, MayStillRun: c.MayStillRun()}
}

// MayStillRun reports whether the command was withdrawn after it was sent, and its node has
// reported neither an outcome nor that it obeys the withdrawal.
func (c Command) MayStillRun() bool {
	return c.State == CommandWithdrawn && !c.SentAt.IsZero() && c.AckedAt.IsZero() && c.WithdrawAckedAt.IsZero()
}

// AddCommand adds a command and its audit entry, or neither. It returns ErrConflict if
// c.Replaces was sent or has ended.
func (s *Store) AddCommand(ctx context.Context, c Command, a api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		if c.Replaces != "" {
			r, err := tx.exec(ctx, `UPDATE commands SET acked_at = ?, success = ?, error_code = ?, error = ?, state = 'superseded', decided_by = ?, reason = ?
				WHERE id = ? AND node_id = ? AND sent_at = 0 AND acked_at = 0 AND`+open,
				ms(c.CreatedAt), false, api.CodeReplaced, "replaced by another command before it was sent", c.Actor, ReasonReplaced, c.Replaces, c.NodeID)
			if err != nil {
				return err
			}
			if k, err := r.RowsAffected(); err != nil || k == 0 {
				return errors.Join(err, fmt.Errorf("command %q was sent: %w", c.Replaces, ErrConflict))
			}
		}
		return errors.Join(addCommand(ctx, tx, c), addAudit(ctx, tx, a))
	})
}

// addCommand adds a pending command. It takes the place of a command of the node that was
// over for the manager, but not acknowledged.
func addCommand(ctx context.Context, tx conn, c Command) error {
	if err := errors.Join(closeFinished(ctx, tx, c.NodeID), withdrawOpen(ctx, tx, c.NodeID, c.Actor, ReasonReplaced, c.CreatedAt)); err != nil {
		return err
	}
	_, err := tx.exec(ctx, "INSERT INTO commands (id, node_id, version, channel, action, created_at, actor, limit_ms, state, rollout_id, acting) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?)",
		c.ID, c.NodeID, c.Version, c.Channel, string(c.Action), ms(c.CreatedAt), c.Actor, c.Limit.Milliseconds(), c.RolloutID, c.Acting)
	return err
}

// RecordAck records the outcome of a node's command, also of one that was withdrawn. Only the
// first one counts: for a repeated one, or a command of another node, it reports false.
func (s *Store) RecordAck(ctx context.Context, c Command) (bool, error) {
	r, err := s.exec(ctx, `UPDATE commands SET acked_at = ?, success = ?, error_code = ?, error = ?, data = ?, state = CASE WHEN state = 'withdrawn' THEN state ELSE 'ended' END
		WHERE id = ? AND node_id = ? AND acked_at = 0`,
		ms(c.AckedAt), c.Success, c.ErrorCode, c.Error, null(c.Data), c.ID, c.NodeID)
	if err != nil {
		return false, err
	}
	k, err := r.RowsAffected()
	return k > 0, err
}

const commandColumns = "id, node_id, version, channel, action, created_at, sent_at, acked_at, success, error_code, error, data, actor, state, rollout_id, acting, withdrawn_at, withdraw_sent_at, withdraw_acked_at, decided_by, reason, limit_ms"

func scanCommand(row scanner) (Command, error) {
	var c Command
	var action string
	var data sql.NullString
	var limit, created, sent, acked, withdrawn, withdrawSent, withdrawAcked int64
	err := row.Scan(&c.ID, &c.NodeID, &c.Version, &c.Channel, &action, &created, &sent, &acked, &c.Success, &c.ErrorCode, &c.Error, &data, &c.Actor,
		&c.State, &c.RolloutID, &c.Acting, &withdrawn, &withdrawSent, &withdrawAcked, &c.DecidedBy, &c.Reason, &limit)
	c.Action, c.Data = json.RawMessage(action), raw(data)
	c.CreatedAt, c.SentAt, c.AckedAt = fromMS(created), fromMS(sent), fromMS(acked)
	c.WithdrawnAt, c.WithdrawSentAt, c.WithdrawAckedAt = fromMS(withdrawn), fromMS(withdrawSent), fromMS(withdrawAcked)
	c.Limit = time.Duration(limit) * time.Millisecond
	return c, unreadable(cmp.Or(err, valid(c.Action, c.Data)))
}

// Commands returns a node's commands, newest first, at most limit; all if limit is
// negative.
func (s *Store) Commands(ctx context.Context, nodeID string, limit int) ([]Command, error) {
	rows, err := s.query(ctx, "SELECT "+commandColumns+" FROM commands WHERE node_id = ? ORDER BY seq DESC LIMIT ?", nodeID, all(limit))
	return list(ctx, rows, err, scanCommand)
}

// SentAlone returns the commands, oldest first, that were sent, that were requested for one node,
// and whose nodes have not acknowledged them.
func (s *Store) SentAlone(ctx context.Context) ([]Command, error) {
	rows, err := s.query(ctx, "SELECT "+commandColumns+" FROM commands WHERE state = 'sent' AND rollout_id = '' ORDER BY seq")
	return list(ctx, rows, err, scanCommand)
}

// Command returns a command, or ErrNotFound.
func (s *Store) Command(ctx context.Context, id string) (Command, error) {
	c, err := scanCommand(s.row(ctx, "SELECT "+commandColumns+" FROM commands WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("command %q: %w", id, ErrNotFound)
	}
	return c, err
}
