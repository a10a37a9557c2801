package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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
