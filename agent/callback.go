package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

const (
	// callbackGrace is how long most callbacks may take to return once their context has ended.
	callbackGrace = 2 * time.Second
	// panicLogEvery is how often the stack of the same panic is logged: a check is called
	// every second.
	panicLogEvery = time.Minute
)

// callback calls one function of the author's, so that the function can neither end nor hang
// the service:
//
//   - Its context ends after limit. A call that does not return within grace after
//     that, or after the end of the caller's context, is abandoned: the caller gets a
//     *callbackError, and the result is discarded. While an abandoned call still runs, every
//     further call fails at once and does not call the function.
//   - A panic and a runtime.Goexit become a *callbackError. The log has the stack. A panic on
//     a goroutine that the function started cannot be caught.
//   - An error that the function returns is read once, by the same rules and within
//     callbackGrace: its methods are the author's, too. The caller gets a *plainError.
//   - Calls do not overlap: a call waits until the one before has returned or is abandoned.
//     The limit does not include this wait.
//
// Nothing waits for an abandoned call. The methods may be called from several goroutines.
type callback struct {
	name  string                        // as the author knows it: "Options.Check"
	limit time.Duration                 // of one call
	grace time.Duration                 // how long a call may take to return once its context has ended
	log   func(msg string, args ...any) // writes a record of the level error; keys and values
	turn  chan struct{}                 // has a token while a call runs that is not abandoned

	mu        sync.Mutex
	abandoned bool      // a call runs that was abandoned
	panicText string    // of the panic that was logged last
	panicTime time.Time // when
}

func newCallback(name string, limit time.Duration, log func(msg string, args ...any)) *callback {
	return &callback{name: name, limit: limit, grace: callbackGrace, log: log, turn: make(chan struct{}, 1)}
}

// callbackError reports that a callback returned no result: it panicked, was abandoned, or
// still runs.
type callbackError struct{ callback, why string }

func (e *callbackError) Error() string { return e.callback + " " + e.why }

// isCallbackError reports whether err is, or wraps, a *callbackError.
func isCallbackError(err error) bool {
	var e *callbackError
	return errors.As(err, &e)
}

// call calls f by the rules of c. f must not write to variables that the caller reads, because
// f may still run after call has returned: see callValue.
func (c *callback) call(ctx context.Context, f func(context.Context) error) error {
	_, err := c.run(ctx, f)
	return err
}

// callValue is callback.call for a function with a result.
func callValue[T any](ctx context.Context, c *callback, f func(context.Context) (T, error)) (T, error) {
	var none T
	value := new(T)
	returned, err := c.run(ctx, func(ctx context.Context) (err error) { *value, err = f(ctx); return err })
	if !returned { // f may write to value still
		return none, err
	}
	return *value, err
}

// run is call, and reports whether f has returned.
func (c *callback) run(ctx context.Context, f func(context.Context) error) (returned bool, err error) {
	select {
	case c.turn <- struct{}{}:
	default:
		select {
		case c.turn <- struct{}{}:
		case <-ctx.Done():
			return false, fmt.Errorf("%s was not called: %w", c.name, ctx.Err())
		}
	}
	defer func() { <-c.turn }()
	if c.runs() {
		return false, &callbackError{c.name, "was not called again: the call that was abandoned before still runs"}
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	result := new(error) // of f
	done := make(chan struct{})
	reading := make(chan struct{}) // is closed once f has returned an error
	began := time.Now()
	go func() {
		defer c.returned(done, began)
		subject := "" // of the sentence about a panic; "": f
		defer func() {
			if p := recover(); p != nil {
				*result = c.panicked(subject, p, debug.Stack())
			}
		}()
		*result = &callbackError{c.name, "ended its own goroutine (runtime.Goexit)"}
		err := f(limited)
		if err == nil {
			*result = nil
			return
		}
		subject = cannotRead(err)
		*result = &callbackError{c.name, subject + "ended its own goroutine (runtime.Goexit)"}
		close(reading)
		*result = plain(err)
	}()
	wait := c.grace
	select {
	case <-done:
		return true, *result
	case <-reading: // Options.Serve has no limit
		wait = callbackGrace
	case <-limited.Done():
	}
	grace := time.NewTimer(wait)
	defer grace.Stop()
	select {
	case <-done:
		return true, *result
	case <-grace.C:
	}
	if !c.abandon(done) {
		return true, *result
	}
	why, record := fmt.Sprintf("did not return within its %v", c.limit), "it ignores the end of its context"
	select {
	case <-reading:
		why, record = "returned an error that cannot be read: a method of it did not return", "a method of the error that it returned does not return"
	default:
		if ctx.Err() != nil {
			why = fmt.Sprintf("did not return within %v of the end of its context", c.grace)
		}
	}
	c.log("a callback was abandoned: "+record+", and it is not called again until that call returns", "callback", c.name, "after", time.Since(began).Round(time.Millisecond).String())
	return false, &callbackError{c.name, why}
}

// runs reports whether an abandoned call runs.
func (c *callback) runs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.abandoned
}

// abandon marks the call that closes done as abandoned. It reports false if the call has
// returned.
func (c *callback) abandon(done <-chan struct{}) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-done:
		return false
	default:
	}
	c.abandoned = true
	return true
}

// returned ends a call.
func (c *callback) returned(done chan struct{}, began time.Time) {
	c.mu.Lock()
	late := c.abandoned
	c.abandoned = false
	close(done)
	c.mu.Unlock()
	if late {
		c.log("a callback that was abandoned has returned; its result is discarded", "callback", c.name, "after", time.Since(began).Round(time.Millisecond).String())
	}
}

// panicked logs a panic, and returns it as an error. subject is "", or what cannotRead returns.
func (c *callback) panicked(subject string, p any, stack []byte) error {
	text := release.Foreign(fmt.Sprint(p), maxReason)
	c.mu.Lock()
	logged := text == c.panicText && time.Since(c.panicTime) < panicLogEvery
	if !logged {
		c.panicText, c.panicTime = text, time.Now()
	}
	c.mu.Unlock()
	if !logged {
		c.log("a callback panicked", "callback", c.name, "panic", text, "stack", string(stack))
	}
	return &callbackError{c.name, subject + "panicked: " + text}
}
