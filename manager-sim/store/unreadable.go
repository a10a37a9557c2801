package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

type unreadableKey struct{}

// CountUnreadable returns a context in which the lists of a Store count the rows that they
// leave out because they cannot be read.
func CountUnreadable(ctx context.Context) (context.Context, *int) {
	n := new(int)
	return context.WithValue(ctx, unreadableKey{}, n), n
}

// unreadable returns err so that it wraps ErrUnreadable if it is about the content of a row.
func unreadable(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if err == nil || errors.Is(err, ErrUnreadable) {
		return err
	}
	if errors.As(err, &syntax) || errors.As(err, &kind) || strings.HasPrefix(err.Error(), "sql: Scan error") || strings.HasPrefix(err.Error(), "parsing time") {
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return err
}

// valid returns ErrUnreadable unless each text is JSON, or nil.
func valid(texts ...json.RawMessage) error {
	for _, t := range texts {
		if t != nil && !json.Valid(t) {
			return fmt.Errorf("%w: %.40q is no JSON", ErrUnreadable, string(t))
		}
	}
	return nil
}

// list is collect for a list of the API: it leaves out and counts the rows that cannot be
// read.
func list[T any](ctx context.Context, rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		v, err := scan(rows)
		if err = unreadable(err); errors.Is(err, ErrUnreadable) {
			if n, ok := ctx.Value(unreadableKey{}).(*int); ok {
				*n++
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// UnreadableOpen returns the newest open command of a node that cannot be read, and why. Of the
// command only ID, NodeID, Version, RolloutID, State and whether it was sent are known: SentAt is
// zero or now. It returns ErrNotFound if all open commands can be read.
func (s *Store) UnreadableOpen(ctx context.Context, nodeID string) (c Command, why, err error) {
	rows, err := s.query(ctx, "SELECT id, CAST(version AS TEXT), rollout_id, state, sent_at != 0 FROM commands WHERE node_id = ? AND"+open+" ORDER BY seq DESC", nodeID)
	cs, err := collect(rows, err, func(row scanner) (c Command, err error) {
		var sent bool
		c.NodeID = nodeID
		if err = row.Scan(&c.ID, &c.Version, &c.RolloutID, &c.State, &sent); sent {
			c.SentAt = time.Now()
		}
		return c, err
	})
	if err != nil {
		return Command{}, nil, err
	}
	for _, c := range cs {
		if _, why := s.Command(ctx, c.ID); errors.Is(why, ErrUnreadable) {
			return c, why, nil
		} else if why != nil && !errors.Is(why, ErrNotFound) {
			return Command{}, nil, why
		}
	}
	return Command{}, nil, fmt.Errorf("open command of node %q that cannot be read: %w", nodeID, ErrNotFound)
}
