package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
)

// CommandState is whether a command may be sent. Only what sends and what decides changes
// it, in the transaction of the decision. A node has at most one command that is
// CommandPending, CommandHeld or CommandSent.
type CommandState string

// The states of a command.
const (
	CommandPending    CommandState = "pending"    // to be sent
	CommandHeld       CommandState = "held"       // not to be sent, until its rollout resumes
	CommandSent       CommandState = "sent"       // sent, and to be sent again until the node acknowledges it
	CommandWithdrawn  CommandState = "withdrawn"  // never to be sent again; a late outcome still counts
	CommandSuperseded CommandState = "superseded" // replaced by another one before it was sent
	CommandEnded      CommandState = "ended"      // the node has acknowledged it
)

// Open reports whether the command may be sent now or later.
func (s CommandState) Open() bool {
	return s == CommandPending || s == CommandHeld || s == CommandSent
}

// Reasons of a withdrawal; a person may give another one.
const (
	ReasonAbort    = "abort"
	ReasonPause    = "pause"
	ReasonSkip     = "skip"
	ReasonLimit    = "time_limit"
	ReasonRetry    = "retry"
	ReasonReplaced = "replaced"
	ReasonMoved    = "moved"
	ReasonRemoved  = "removed"
	ReasonLifetime = "lifetime"
	ReasonRights   = "rights"
	ReasonUnable   = "unable"
)

// CommandChange is a decision about a command. State is CommandWithdrawn, CommandHeld, or
// CommandPending, which ends CommandHeld: the command is CommandSent if it was sent before.
type CommandChange struct {
	ID     string
	State  CommandState
	At     time.Time
	By     string // a person, or "manager"
	Reason string
}

// ErrNotSendable means that a command was withdrawn, superseded or held, has ended, or was
// given to a node that has left the group of its rollout. It must not be sent.
var ErrNotSendable = errors.New("the command must not be sent")

const open = " state IN ('pending', 'held', 'sent')"

// ChangeCommands applies decisions about commands with their audit entries, or nothing. A
// decision that comes too late changes nothing: the command is no longer open.
func (s *Store) ChangeCommands(ctx context.Context, changes []CommandChange, audits ...api.AuditEntry) error {
	return s.change(ctx, func(tx conn) error {
		if err := changeCommands(ctx, tx, changes); err != nil {
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

func changeCommands(ctx context.Context, tx conn, changes []CommandChange) error {
	for _, c := range changes {
		var err error
		switch c.State {
		case CommandWithdrawn:
			_, err = tx.exec(ctx, "UPDATE commands SET state = 'withdrawn', withdrawn_at = ?, decided_by = ?, reason = ? WHERE id = ? AND"+open, ms(c.At), c.By, c.Reason, c.ID)
		case CommandHeld:
			_, err = tx.exec(ctx, "UPDATE commands SET state = 'held', decided_by = ?, reason = ? WHERE id = ? AND state IN ('pending', 'sent')", c.By, c.Reason, c.ID)
		case CommandPending:
			_, err = tx.exec(ctx, "UPDATE commands SET state = CASE WHEN sent_at = 0 THEN 'pending' ELSE 'sent' END, decided_by = '', reason = '' WHERE id = ? AND state = 'held'", c.ID)
		default:
			err = fmt.Errorf("no decision makes a command %q", c.State)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setActing gives the open commands of a rollout the rights of a person; nil: they stay.
func setActing(ctx context.Context, tx conn, rolloutID string, p *Person) error {
	if p == nil {
		return nil
	}
	_, err := tx.exec(ctx, "UPDATE commands SET acting = ?, actor = ? WHERE rollout_id = ? AND rollout_id != '' AND acting != ? AND"+open, p.Key, p.Name, rolloutID, p.Key)
	return err
}

// SetActing gives the open commands of a rollout the rights of a person.
func (s *Store) SetActing(ctx context.Context, rolloutID string, p Person) error {
	return s.tx(ctx, func(tx conn) error { return setActing(ctx, tx, rolloutID, &p) })
}

// closeFinished ends the open command of a node whose outcome is known from its events.
func closeFinished(ctx context.Context, tx conn, nodeID string) error {
	_, err := tx.exec(ctx, `UPDATE commands SET state = 'ended' WHERE node_id = ? AND state IN ('pending', 'held', 'sent') AND EXISTS (SELECT 1 FROM events
		WHERE events.node_id = commands.node_id AND events.command_id = commands.id AND events.error_code IN (?, ?, ?))`,
		nodeID, string(release.Completed), string(release.RolledBack), string(release.Superseded))
	return err
}

// withdrawOpen withdraws the open command of a node, if there is one.
func withdrawOpen(ctx context.Context, tx conn, nodeID, by, reason string, at time.Time) error {
	_, err := tx.exec(ctx, "UPDATE commands SET state = 'withdrawn', withdrawn_at = ?, decided_by = ?, reason = ? WHERE node_id = ? AND"+open, ms(at), by, reason, nodeID)
	return err
}

// withdrawMoved withdraws what was never sent of a node, and belongs to a rollout to another
// group than the node's.
func withdrawMoved(ctx context.Context, tx conn, nodeID, by string, at time.Time) error {
	_, err := tx.exec(ctx, `UPDATE commands SET state = 'withdrawn', withdrawn_at = ?, decided_by = ?, reason = ? WHERE node_id = ? AND sent_at = 0 AND state IN ('pending', 'held')
		AND EXISTS (SELECT 1 FROM rollouts, nodes WHERE rollouts.id = commands.rollout_id AND nodes.id = commands.node_id AND nodes.group_id != rollouts.group_id)`,
		ms(at), by, ReasonMoved, nodeID)
	return err
}

// RecordSent records that a command is sent now, or returns ErrNotSendable. Repeating it
// records the later time. A decision that is stored before counts, one that is stored later
// does not: so the caller sends the command only if this succeeds.
func (s *Store) RecordSent(ctx context.Context, id string, at time.Time) error {
	return s.mark(ctx, id, `UPDATE commands SET sent_at = ?, state = 'sent' WHERE id = ? AND state IN ('pending', 'sent')
		AND EXISTS (SELECT 1 FROM nodes WHERE nodes.id = commands.node_id AND nodes.removed_at = 0 AND nodes.duplicate IS NULL
			AND (commands.rollout_id = '' OR nodes.group_id = (SELECT group_id FROM rollouts WHERE rollouts.id = commands.rollout_id)))`, ms(at), id)
}

// RecordWithdrawSent records that the withdrawal of a command is sent now, or returns
// ErrNotSendable: the node has answered it.
func (s *Store) RecordWithdrawSent(ctx context.Context, id string, at time.Time) error {
	return s.mark(ctx, id, "UPDATE commands SET withdraw_sent_at = ? WHERE id = ? AND state = 'withdrawn' AND withdraw_acked_at = 0", ms(at), id)
}

func (s *Store) mark(ctx context.Context, id, query string, args ...any) error {
	r, err := s.exec(ctx, query, args...)
	if err != nil {
		return err
	}
	if k, err := r.RowsAffected(); err != nil || k == 0 {
		return errors.Join(err, fmt.Errorf("command %q: %w", id, ErrNotSendable))
	}
	return nil
}

// RecordWithdrawAck records a node's answer to the withdrawal of a command. A refusal counts
// only if the node has reported an outcome of the command: otherwise the withdrawal is sent
// again. It reports whether something changed.
func (s *Store) RecordWithdrawAck(ctx context.Context, nodeID, id string, success bool, at time.Time) (bool, error) {
	err := s.mark(ctx, id, "UPDATE commands SET withdraw_acked_at = ? WHERE id = ? AND node_id = ? AND state = 'withdrawn' AND withdraw_acked_at = 0 AND (? OR acked_at != 0)",
		ms(at), id, nodeID, success)
	if errors.Is(err, ErrNotSendable) {
		return false, nil
	}
	return err == nil, err
}

// Unanswered is what is known about a command that its node has not acknowledged, or has
// acknowledged as withdrawn.
type Unanswered struct {
	ID     string
	State  CommandState
	SentAt time.Time // zero: it was not sent
	Begun  bool      // there is an event for it, but none that says that it was withdrawn
	// Obeyed is whether the node reported that it obeys the withdrawal.
	Obeyed bool
}

// Unanswered returns such commands of a rollout, by id. A node has begun every other one.
func (s *Store) Unanswered(ctx context.Context, rolloutID string) (map[string]Unanswered, error) {
	rows, err := s.query(ctx, `SELECT id, state, sent_at, acked_at = 0 AND EXISTS (SELECT 1 FROM events WHERE events.node_id = commands.node_id AND events.command_id = commands.id)
			AND NOT EXISTS (SELECT 1 FROM events WHERE events.node_id = commands.node_id AND events.command_id = commands.id AND events.error_code = ?),
			acked_at != 0 OR withdraw_acked_at != 0
		FROM commands WHERE rollout_id = ? AND rollout_id != '' AND (acked_at = 0 OR error_code = ?)`, string(release.Withdrawn), rolloutID, string(release.Withdrawn))
	list, err := collect(rows, err, func(row scanner) (a Unanswered, err error) {
		var sent int64
		err = row.Scan(&a.ID, &a.State, &sent, &a.Begun, &a.Obeyed)
		a.SentAt = fromMS(sent)
		return a, err
	})
	known := make(map[string]Unanswered, len(list))
	for _, a := range list {
		known[a.ID] = a
	}
	return known, err
}

// AdoptCommands records that commands of an earlier version belong to a rollout.
func (s *Store) AdoptCommands(ctx context.Context, rolloutID string, ids []string) error {
	return s.tx(ctx, func(tx conn) error {
		for _, id := range ids {
			if _, err := tx.exec(ctx, "UPDATE commands SET rollout_id = ? WHERE id = ? AND rollout_id = ''", rolloutID, id); err != nil {
				return err
			}
		}
		return nil
	})
}
