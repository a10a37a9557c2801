//go:build !sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// oddError is an error whose methods do what it holds.
type oddError struct{ do func() }

func (e oddError) Error() string { e.do(); return "odd" }

// hiddenError is one whose text is well.
type hiddenError struct{ do func() }

func (e hiddenError) Error() string { return "hidden" }
func (e hiddenError) Unwrap() error { e.do(); return nil }

// oddErrors are the ways in which an error misbehaves that a callback returns. hang is closed
// when the test ends.
var oddErrors = map[string]func(hang chan struct{}) error{
	"is a typed nil": func(chan struct{}) error { var e *os.PathError; return e },
	"panics":         func(chan struct{}) error { return oddError{func() { panic("no text") }} },
	"hangs":          func(hang chan struct{}) error { return oddError{func() { <-hang }} },
	"ends its goroutine": func(chan struct{}) error {
		return oddError{runtime.Goexit}
	},
	"panics in Unwrap": func(chan struct{}) error { return hiddenError{func() { panic("no cause") }} },
	"hangs in Unwrap":  func(hang chan struct{}) error { return hiddenError{func() { <-hang }} },
}

// oddly runs test in a bubble for each of oddErrors; not in parallel, as misbehave.
func oddly(t *testing.T, test func(t *testing.T, odd func() error)) {
	t.Helper()
	for name, odd := range oddErrors {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang := make(chan struct{})
				test(t, func() error { return odd(hang) })
				close(hang)
				synctest.Wait()
			})
		})
	}
}

const cannotBeRead = "returned an error that cannot be read"

// An error that cannot be read fails the call, in time, also of a callback without a limit.
func TestACallbackWhoseErrorCannotBeRead(t *testing.T) {
	oddly(t, func(t *testing.T, odd func() error) {
		for _, limit := range []time.Duration{time.Second, 1 << 62} {
			c, _ := recorded(t)
			c.limit = limit
			began := time.Now()
			err := c.call(t.Context(), func(context.Context) error { return odd() })
			if took := time.Since(began); !isCallbackError(err) || !strings.Contains(err.Error(), "Options.Check "+cannotBeRead) || took > callbackGrace {
				t.Errorf("after %v: %v", took, err)
			}
		}
	})
}

// The agent keeps of an error what decides something, and calls none of its methods again.
func TestWhatIsKeptOfAnError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "no", "file")
	denied := &fs.PathError{Op: "stat", Path: path, Err: syscall.EACCES}
	for name, tt := range map[string]struct {
		err     error
		text    string
		code    release.Code
		timeout bool
		is      error
	}{
		"plain":     {err: errors.New("no disk"), text: "no disk", code: release.Internal},
		"canceled":  {err: fmt.Errorf("ask: %w", context.Canceled), text: "ask: context canceled", code: release.Internal, is: context.Canceled},
		"deadline":  {err: fmt.Errorf("ask: %w", context.DeadlineExceeded), text: "ask: context deadline exceeded", code: release.Internal, timeout: true, is: context.DeadlineExceeded},
		"a timeout": {err: os.ErrDeadlineExceeded, text: "i/o timeout", code: release.Internal, timeout: true},
		"a code":    {err: fmt.Errorf("save: %w", release.Errorf(release.Unhealthy, "sick")), text: "save: sick", code: release.Unhealthy},
		"no space":  {err: &fs.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}, text: "write /x: no space left on device", code: release.DiskFull, is: syscall.ENOSPC},
		"denied":    {err: denied, text: denied.Error() + ": the modes and the mount allow it", code: release.Internal},
		"long":      {err: errors.New(strings.Repeat("é", maxErrorText)), text: strings.Repeat("é", maxErrorText/2-2), code: release.Internal},
	} {
		c, _ := recorded(t)
		over := false
		err := c.call(t.Context(), func(context.Context) error {
			return &onceError{tt.err, &over}
		})
		over = true
		if isCallbackError(err) || err == nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		code, text := codeAndText(err)
		switch {
		case !strings.HasPrefix(err.Error(), tt.text), len(err.Error()) > maxErrorText, tt.err != denied && len(text) <= maxErrorText && name != "long" && err.Error() != tt.text:
			t.Errorf("%s: the text is %.200q", name, err)
		case code != tt.code, isTimeout(err) != tt.timeout, tt.is != nil && !errors.Is(err, tt.is):
			t.Errorf("%s: code %s, timeout %t: %v", name, code, isTimeout(err), err)
		}
	}
}

// onceError panics when it is read after over is set.
type onceError struct {
	err  error
	over *bool
}

func (e *onceError) Error() string {
	if *e.over {
		panic("read again")
	}
	return e.err.Error()
}

func (e *onceError) Unwrap() error {
	if *e.over {
		panic("read again")
	}
	return e.err
}

// No error of a function ends or hangs a version on trial: the trial fails, and tells why.
func TestAnErrorOnTrialThatCannotBeRead(t *testing.T) {
	for name, set := range map[string]func(c *node, odd func() error){
		"Options.Check": func(c *node, odd func() error) { c.Check = func(context.Context) error { return odd() } },
		"Options.Serve": func(c *node, odd func() error) {
			c.Serve = func(_ context.Context, a *Agent) error { a.Ready(); return odd() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			oddly(t, func(t *testing.T, odd func() error) {
				c, l, _, _ := aloneOnTrial(t)
				set(&c, odd)
				began := time.Now()
				_, _, done := started(t, c)
				if err := <-done; !errors.Is(err, ErrTrialFailed) || !strings.Contains(err.Error(), name+" "+cannotBeRead) && !strings.Contains(err.Error(), name+" was not called again") || time.Since(began) > 3*time.Minute {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				if res, err := l.Read(); err != nil || !strings.Contains(strings.Join(res.State.FailedStarts, ""), name) {
					t.Errorf("%+v, %v", res.State, err)
				}
			})
		})
	}
}

// A stable start goes on with whatever errors its functions return.
func TestErrorsInAStableStartThatCannotBeRead(t *testing.T) {
	oddly(t, func(t *testing.T, odd func() error) {
		c, l, _, log := alone(t)
		secs := 5
		c.Upgrade.DrainSecs = &secs
		f := func(context.Context) error { return odd() }
		c.Check, c.Drain, c.CheckUnit = f, f, f
		c.Notify = func(string) error { return odd() }
		c.Serve = func(_ context.Context, a *Agent) error { a.Ready(); return odd() }
		c.Kept = func(context.Context, Change) error { return odd() }
		c.RolledBack = func(context.Context, Change) error { return odd() }
		c.BeforeTrial = func(context.Context, Change) error { return odd() }
		c.CheckVersion = func(context.Context, string) error { return odd() }
		c.Journal = func(context.Context) ([]string, error) { return nil, odd() }
		if err := l.ChangeHooks(t.Context(), func(h *state.Hooks) {
			h.Kept = &state.Saved{From: release.MustVersion("0.9.0"), To: release.MustVersion("1.0.0")}
		}); err != nil {
			t.Fatal(err)
		}
		a, _, done := started(t, c)
		time.Sleep(2 * time.Minute)
		if h := a.health(t.Context()); h.Status != "degraded" || !strings.Contains(h.UpgradeUnavailable, "Options.CheckUnit") {
			t.Errorf("health: %+v", h)
		}
		_, notSaved := a.beforeTrial(t.Context(), release.MustVersion("1.1.0"))
		for name, err := range map[string]error{
			"BeforeTrial": notSaved, "CheckVersion": a.fitsVersion(t.Context(), ""), "Check": a.askCheck(t.Context()),
		} {
			if !isCallbackError(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		put(t, l, "t.rollback", false)
		a.attachJournal(t.Context())
		a.closeSwap()
		if err := <-done; !errors.Is(err, ErrRestart) {
			t.Errorf("it ends with: %v", err)
		}
		for _, name := range []string{"Drain", "CheckUnit", "Notify", "Serve", "Kept", "Journal"} {
			if s := log.String(); !strings.Contains(s, "Options."+name+" "+cannotBeRead) && !strings.Contains(s, `"callback":"Options.`+name+`"`) {
				t.Errorf("%s is not in the log: %s", name, s)
			}
		}
		if s := log.String(); strings.Contains(s, "<nil>") {
			t.Errorf("log: %s", s)
		}
	})
}

// A service that restores its data after a rollback, with an error that cannot be read, is asked
// again, and its node reports it.
func TestAnErrorOfRolledBackThatCannotBeRead(t *testing.T) {
	oddly(t, func(t *testing.T, odd func() error) {
		c, l, _, _ := alone(t)
		c.RolledBack = func(context.Context, Change) error { return odd() }
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		v := release.MustVersion("1.1.0")
		if err := l.ChangeHooks(t.Context(), func(h *state.Hooks) { h.Saved = &state.Saved{From: a.c.version, To: v, After: "before"} }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var got []string
		a.restore(ctx, state.State{Status: state.RolledBack, Target: v, TrialID: "c"}, func(err error) { got = append(got, err.Error()) })
		if len(got) < 3 || !strings.Contains(got[0], "Options.RolledBack "+cannotBeRead) {
			t.Errorf("got %q", got)
		}
	})
}

// A handler whose error, or result, cannot be read has failed.
func TestAHandlerWhoseErrorCannotBeRead(t *testing.T) {
	oddly(t, func(t *testing.T, odd func() error) {
		for name, h := range map[string]Handler{
			"error":  func(context.Context, Command) (any, error) { return nil, odd() },
			"result": func(context.Context, Command) (any, error) { return oddResult{odd}, nil },
		} {
			c, _, _, _ := alone(t)
			c.Handlers = Handlers{name: h}
			c.HandlerTimeout = 10 * time.Second
			a, err := newOf(c)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			ack := a.commands.(*actions).carryOut(t.Context(), Command{ID: name, Action: name})
			if took := time.Since(began); ack == nil || ack.Success || ack.ErrorCode != wire.ActionFailed && ack.ErrorCode != wire.ActionTimeout || took > 15*time.Second {
				t.Errorf("%s, after %v: %+v", name, took, ack)
			}
		}
	})
}

// oddResult is a result that JSON cannot encode.
type oddResult struct{ odd func() error }

func (r oddResult) MarshalJSON() ([]byte, error) { return nil, r.odd() }
