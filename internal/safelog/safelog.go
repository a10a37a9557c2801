// Package safelog keeps a log whose handler panics or hangs from taking its program down.
package safelog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Limit is how long a handler may take for one record.
const Limit = 2 * time.Second

// New returns a log that writes to that of the author's program; nil discards everything. The
// handler of log is called by one goroutine at a time. A record for which it panics, or takes
// longer than Limit, may be lost; all further ones are until that call returns. Then the next
// record follows one with their number.
func New(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	if _, is := log.Handler().(*handler); is {
		return log
	}
	return slog.New(&handler{&guard{turn: make(chan struct{}, 1)}, log.Handler})
}

// guard is what a handler shares with those that WithAttrs and WithGroup return.
type guard struct {
	turn  chan struct{} // has a token while a record is written
	calls atomic.Int32  // of the author's handler that have not returned
	lost  atomic.Int64  // records, or written late
}

// call calls f, and reports whether it returned in time.
func (g *guard) call(f func()) bool {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	if g.calls.Load() > 0 {
		return false
	}
	g.calls.Add(1)
	done := make(chan bool, 1)
	go func() {
		returned := false
		defer func() {
			_ = recover() // there is no other log
			g.calls.Add(-1)
			done <- returned
		}()
		f()
		returned = true
	}()
	limit := time.NewTimer(Limit)
	defer limit.Stop()
	select {
	case returned := <-done:
		return returned
	case <-limit.C:
		return false
	}
}

// handler is a slog.Handler in front of the author's.
type handler struct {
	*guard
	// resolve returns the author's handler with the attributes and groups of this one. Its
	// methods are called within guard.call only.
	resolve func() slog.Handler
}

// Enabled is true: Handle asks the author's handler.
func (h *handler) Enabled(context.Context, slog.Level) bool { return true }

// Handle returns no error: nobody could report it.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.call(func() {
		to := h.resolve()
		if !to.Enabled(ctx, r.Level) {
			return
		}
		if lost := h.lost.Swap(0); lost > 0 {
			missing := slog.NewRecord(r.Time, slog.LevelWarn, "records of the log may be missing: its handler panicked, or did not return in time", 0)
			missing.AddAttrs(slog.Int64("missing", lost))
			_ = to.Handle(ctx, missing)
		}
		_ = to.Handle(ctx, r)
	}) {
		h.lost.Add(1)
	}
	return nil
}

func (h *handler) with(change func(slog.Handler) slog.Handler) slog.Handler {
	return &handler{h.guard, sync.OnceValue(func() slog.Handler { return change(h.resolve()) })}
}

// WithAttrs is slog.Handler.WithAttrs.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

// WithGroup is slog.Handler.WithGroup.
func (h *handler) WithGroup(name string) slog.Handler {
	return h.with(func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}
