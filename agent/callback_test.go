//go:build !sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// recorded is a callback of one second, and what it logs.
func recorded(t *testing.T) (*callback, *lines) {
	t.Helper()
	log := &lines{}
	return newCallback("Options.Check", time.Second, func(msg string, args ...any) { fmt.Fprintln(log, append([]any{msg}, args...)...) }), log
}

func TestACallbackReturnsItsResult(t *testing.T) {
	t.Parallel()
	c, log := recorded(t)
	n, err := callValue(t.Context(), c, func(context.Context) (int, error) { return 7, nil })
	if n != 7 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	bad := errors.New("no disk")
	if err := c.call(t.Context(), func(context.Context) error { return bad }); err == nil || err.Error() != bad.Error() || isCallbackError(err) {
		t.Errorf("got %v", err)
	}
	if log.String() != "" {
		t.Errorf("logged: %s", log)
	}
}

// A panic is an error, and its stack is logged once a minute.
func TestACallbackThatPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, log := recorded(t)
		for range 3 {
			err := c.call(t.Context(), func(context.Context) error { panic("no\nmap") })
			if !isCallbackError(err) || err.Error() != "Options.Check panicked: no map" {
				t.Errorf("got %v", err)
			}
		}
		if s := log.String(); strings.Count(s, "a callback panicked") != 1 || !strings.Contains(s, "callback_test.go") {
			t.Errorf("logged: %s", s)
		}
		time.Sleep(panicLogEvery)
		c.call(t.Context(), func(context.Context) error { panic("no\nmap") })
		if s := log.String(); strings.Count(s, "a callback panicked") != 2 {
			t.Errorf("logged: %s", s)
		}
	})
}

func TestACallbackThatEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	c, _ := recorded(t)
	if err := c.call(t.Context(), func(context.Context) error { runtime.Goexit(); return nil }); !isCallbackError(err) {
		t.Errorf("got %v", err)
	}
}

// A callback that ignores the end of its context is abandoned. Until that call returns it is
// not called again, and each further call fails at once.
func TestACallbackThatIgnoresItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, log := recorded(t)
		hang := make(chan struct{})
		var calls atomic.Int64
		f := func(context.Context) error { calls.Add(1); <-hang; return nil }
		began := time.Now()
		err := c.call(t.Context(), f)
		if took := time.Since(began); !isCallbackError(err) || took != time.Second+callbackGrace {
			t.Errorf("after %v: %v", took, err)
		}
		began = time.Now()
		for range 3 {
			if err := c.call(t.Context(), f); !isCallbackError(err) || !strings.Contains(err.Error(), "still runs") {
				t.Errorf("while it runs: %v", err)
			}
		}
		if took := time.Since(began); took != 0 || calls.Load() != 1 {
			t.Errorf("%v, %d calls", took, calls.Load())
		}
		if s := log.String(); strings.Count(s, "was abandoned") != 1 {
			t.Errorf("logged: %s", s)
		}
		close(hang)
		synctest.Wait()
		if s := log.String(); !strings.Contains(s, "has returned; its result is discarded") {
			t.Errorf("logged: %s", s)
		}
		if err := c.call(t.Context(), func(context.Context) error { return nil }); err != nil {
			t.Errorf("after it returned: %v", err)
		}
	})
}

// The end of the caller waits for callbackGrace at most.
func TestACallbackAtTheEndOfItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := recorded(t)
		c.limit = time.Hour
		hang := make(chan struct{})
		defer close(hang)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		began := time.Now()
		err := c.call(ctx, func(context.Context) error { <-hang; return nil })
		if took := time.Since(began); !isCallbackError(err) || took != time.Minute+callbackGrace {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// A callback that heeds its context tells why it has no answer.
func TestACallbackThatHeedsItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := recorded(t)
		err := c.call(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("ask the disk: %w", ctx.Err()) })
		if isCallbackError(err) || !isTimeout(err) || !strings.Contains(err.Error(), "ask the disk") {
			t.Errorf("got %v", err)
		}
	})
}

// Calls of one callback do not overlap.
func TestCallsOfACallbackDoNotOverlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := recorded(t)
		var running, ended atomic.Int64
		for range 5 {
			go c.call(t.Context(), func(context.Context) error {
				if running.Add(1) != 1 {
					t.Error("two calls run")
				}
				time.Sleep(900 * time.Millisecond)
				running.Add(-1)
				ended.Add(1)
				return nil
			})
		}
		time.Sleep(time.Minute)
		if ended.Load() != 5 {
			t.Errorf("%d calls ended", ended.Load())
		}
	})
}
