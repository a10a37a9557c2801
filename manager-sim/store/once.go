package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Once makes a request that may be repeated change something once.
type Once struct {
	Key         string // of the requester and the request; the same for a repetition
	Fingerprint string // of the content of the request
	done        bool
}

type onceKey struct{}

// With returns a context that binds the next change to o: the store makes the change
// and records o.Key in one transaction, or returns ErrRepeated if the key is recorded
// already.
func (o *Once) With(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, o) }

// Done reports whether a change was made.
func (o *Once) Done() bool { return o.done }

// onceKept is how long a key is remembered.
const onceKept = 24 * time.Hour

// change is tx for a request of an operator: it honours the Once of ctx.
func (s *Store) change(ctx context.Context, f func(conn) error) error {
	o, _ := ctx.Value(onceKey{}).(*Once)
	if o == nil || o.done {
		return s.tx(ctx, f)
	}
	err := s.tx(ctx, func(tx conn) error {
		now := time.Now()
		if _, err := tx.exec(ctx, "DELETE FROM once WHERE time < ?", ms(now.Add(-onceKept))); err != nil {
			return err
		}
		r, err := tx.exec(ctx, "INSERT INTO once (key, fingerprint, time) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", o.Key, o.Fingerprint, ms(now))
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, ErrRepeated)
		}
		return f(tx)
	})
	o.done = err == nil
	return err
}

// Answer is the answer to a request that was made with a Once.
type Answer struct {
	Fingerprint string
	Status      int // 0: not known
	Body        string
}

// Answer returns the answer to a request that was made with a Once, or ErrNotFound. Its
// Status is 0 if the answer is not known.
func (s *Store) Answer(ctx context.Context, key string) (Answer, error) {
	var a Answer
	err := s.row(ctx, "SELECT fingerprint, status, body FROM once WHERE key = ?", key).Scan(&a.Fingerprint, &a.Status, &a.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return a, ErrNotFound
	}
	return a, err
}

// SetAnswer keeps the answer to a request that was made with a Once.
func (s *Store) SetAnswer(ctx context.Context, key string, a Answer) error {
	_, err := s.exec(ctx, "UPDATE once SET status = ?, body = ? WHERE key = ?", a.Status, a.Body, key)
	return err
}
