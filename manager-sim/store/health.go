package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// readyFor is how long a result of Ready is kept.
	readyFor = 10 * time.Second
	// patience is how long a statement may take. Beyond it the store is away: the database is
	// locked, or its server does not answer.
	patience = 5 * time.Second
	// checkTime is how long a check of the database may take.
	checkTime = 4 * time.Second
	// Pauses between two checks while the store is away.
	firstCheck, lastCheck = 250 * time.Millisecond, 2 * time.Second
)

// health knows whether the database can be used. A statement that fails with the trouble of
// the database makes the store away, and so does one that takes longer than patience. Only a
// check that wrote makes it available again: a full database can still be read. A statement
// that waits for its turn behind others is not slow as long as those end.
type health struct {
	check func(context.Context) error // writes, and so finds out whether the database can be used

	ctx  context.Context // of the checks
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	away   bool
	since  time.Time
	cause  error
	done   time.Time     // when a statement last ended without trouble
	back   chan struct{} // closed when the store is available again; nil: it is not away

	ready    sync.Mutex // one check for Ready at a time
	readyAt  time.Time
	readyErr error
}

func newHealth(check func(context.Context) error) *health {
	h := &health{check: check}
	h.ctx, h.stop = context.WithCancel(context.Background()) // until close
	return h
}

func (h *health) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.stop()
	h.wg.Wait()
}

// began notes that a statement begins. The caller calls ended with its error.
func (h *health) began() (ended func(error)) {
	stop := make(chan struct{})
	var slow *time.Timer
	h.mu.Lock()
	defer h.mu.Unlock() // the timer may be due before it is assigned
	slow = time.AfterFunc(patience, func() {
		wait := patience - h.idle()
		select {
		case <-stop:
		default:
			if wait > 0 {
				slow.Reset(wait)
				return
			}
			h.lost(ErrUnavailable)
		}
	})
	return func(err error) {
		close(stop)
		slow.Stop()
		if Unavailable(err) {
			h.lost(err)
			return
		}
		h.mu.Lock()
		h.done = time.Now()
		h.mu.Unlock()
	}
}

// idle returns how long no statement has ended without trouble.
func (h *health) idle() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.done)
}

// lost notes the trouble of the database.
func (h *health) lost(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.cause = err
	if h.away {
		return
	}
	h.away, h.since, h.back = true, time.Now(), make(chan struct{})
	h.wg.Go(h.await)
}

// await checks the database until it can be used.
func (h *health) await() {
	for pause := firstCheck; ; pause = min(2*pause, lastCheck) {
		select {
		case <-h.ctx.Done():
			return
		case <-time.After(pause):
		}
		err := h.try(h.ctx)
		h.mu.Lock()
		if err == nil {
			h.away, h.cause, h.since = false, nil, time.Time{}
			close(h.back)
			h.back = nil
			h.mu.Unlock()
			return
		}
		if h.ctx.Err() == nil {
			h.cause = err
		}
		h.mu.Unlock()
	}
}

// try runs the check with a limit of time.
func (h *health) try(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	err := h.check(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		if h.idle() < checkTime { // it only waited for its turn
			return nil
		}
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// Away reports since when the database cannot be used, and why. It does not ask the
// database. err is nil while the store is available.
func (s *Store) Away() (since time.Time, err error) {
	h := s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.away {
		return time.Time{}, nil
	}
	return h.since, h.cause
}

// Back returns a channel that is closed once the store is available again: at once, if it
// is not away.
func (s *Store) Back() <-chan struct{} {
	h := s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.back != nil {
		return h.back
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// Ready returns nil if the database can be written, and has all tables. It writes at most every 10 s, and
// returns the last result in between. While the store is away it returns the cause.
func (s *Store) Ready(ctx context.Context) error {
	if _, err := s.Away(); err != nil {
		return err
	}
	h := s.health
	h.ready.Lock()
	defer h.ready.Unlock()
	if !h.readyAt.IsZero() && time.Since(h.readyAt) < readyFor {
		return h.readyErr
	}
	err := h.try(context.WithoutCancel(ctx)) // the result is for others, too
	h.readyAt, h.readyErr = time.Now(), err
	if err != nil {
		h.readyAt = time.Time{} // the store is away now, and finds out when that is over
		h.lost(err)
	}
	return err
}

// tables are those of the present schema, apart from the one that write writes.
var tables = []string{"tokens", "nodes", "commands", "events", "audit", "groups", "rollouts", "users", "sessions", "api_tokens", "connections", "once", "sign_ins", "alive", "outages", "actions"}

// checkTables returns an error if a table is missing. It reads no row.
func (s *Store) checkTables(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, "SELECT 1 FROM "+strings.Join(tables, " WHERE 1 = 0 UNION ALL SELECT 1 FROM ")+" WHERE 1 = 0")
	return err
}

// write writes rows that mean nothing. It needs as much room as an event: a full database may still
// change rows in their place.
func (s *Store) write(ctx context.Context) error {
	random := make([]byte, 4096)
	rand.Read(random) // PostgreSQL packs texts
	room := fmt.Sprintf("%x", random)
	lockless := ""
	if s.dialect == postgres {
		lockless = " FOR KEY SHARE SKIP LOCKED" // a node whose row is locked does not make the store away
	}
	err := s.begin(ctx, func(tx conn) error {
		for table, insert := range map[string]string{
			"events": "INSERT INTO events (event_id, node_id, time, received_at, severity, category, message, error_code, command_id, details) SELECT '', id, 0, 0, '', '', '', '', '', ? FROM nodes LIMIT 1" + lockless,
			"audit":  "INSERT INTO audit (time, actor, action, target, details) VALUES (0, '', '', '', ?)",
		} {
			var seq int64
			err := tx.row(ctx, insert+" RETURNING seq", room).Scan(&seq)
			if err == nil {
				_, err = tx.exec(ctx, "DELETE FROM "+table+" WHERE seq = ?", seq)
			}
			if err != nil && !errors.Is(err, sql.ErrNoRows) { // there are no nodes
				return err
			}
		}
		_, err := tx.exec(ctx, "INSERT INTO store_check (one, at) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET at = store_check.at + 1")
		return err
	})
	if err == nil {
		err = s.checkTables(ctx)
	}
	s.drop(err)
	return err
}

// drop closes the connection on which err occurred, if another one may be good. The
// connection is idle by now.
func (s *Store) drop(err error) {
	if stale(err) {
		s.db.SetMaxIdleConns(0)
		s.db.SetMaxIdleConns(1)
	}
}

// watched is the database, whose errors health sees.
type watched struct{ s *Store }

func (w watched) end(ended func(error), err error) {
	w.s.drop(err)
	ended(err)
}

// ExecContext is that of the database.
func (w watched) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	ended := w.s.health.began()
	r, err := w.s.db.ExecContext(ctx, query, args...)
	w.end(ended, err)
	return r, err
}

// QueryContext is that of the database.
func (w watched) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	ended := w.s.health.began()
	rows, err := w.s.db.QueryContext(ctx, query, args...)
	w.end(ended, err)
	return rows, err
}

// QueryRowContext is that of the database.
func (w watched) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	ended := w.s.health.began()
	row := w.s.db.QueryRowContext(ctx, query, args...)
	err := row.Err()
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	w.end(ended, err)
	return row
}
