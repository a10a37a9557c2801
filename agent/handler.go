package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/wire"
)

// Handler carries out one command and returns what the manager shows: a result, which is
// encoded as JSON, or an error. nil is no result. As JSON a result has at most 64 KiB, in which
// each <, > and & counts as six bytes; a longer one is an error.
//
// A handler gets each command once: a command that the manager sends again is answered from
// the record of its first call. A command whose handler the end of the process interrupted is
// answered as failed, with the code action_interrupted, and is not carried out again. These
// records reach back to the last 64 commands. They have the result, and not the parameters.
//
// ctx ends after Options.HandlerTimeout, and when the run ends. Handlers run one at a time, in
// the order in which the commands arrived, also while the version is on trial. They do not run
// on the goroutine of the session: upgrades, health messages and checks go on meanwhile.
// Up to 16 commands wait. Sustained, a handler begins every 5 s at most, because each command
// writes to the disk; 32 begin without that pause.
//
// The answer to a call that failed has one of these codes:
//
//   - action_failed: the handler returned an error, panicked, or returned a result that JSON
//     cannot encode or that is too long
//   - action_timeout: it did not return a result before its context ended by the limit
//   - action_interrupted: the service stopped, or the process died, while it ran
//   - action_busy: it was not called, because 16 commands wait, or because an earlier call for
//     this action was abandoned and still runs
//   - params_too_large: it was not called, because the parameters have more than 64 KiB
type Handler func(ctx context.Context, c Command) (result any, err error)

// Command is what a manager requests of a Handler.
type Command struct {
	ID     string // as the manager chose it
	Action string // the name by which Options.Handlers has the handler
	// Params are the parameters, any JSON value of at most 64 KiB; nil: none. They may have
	// secrets: the agent neither logs nor keeps them.
	Params json.RawMessage
	// Raw is the complete object "action" of the message, for a manager whose commands have
	// other fields than "params".
	Raw json.RawMessage
}

const (
	defaultHandlerTimeout = 5 * time.Minute
	maxHandlerTimeout     = 24 * time.Hour
)

// CommandHandlers is nil, or a Handlers. It is an interface so that a program without handlers
// does not link what serves them.
type CommandHandlers interface {
	// checked returns a copy, and what is wrong with the handlers.
	checked() (CommandHandlers, error)
	callbacks(limit time.Duration, log func(string, ...any)) map[string]*callback
	server(a *Agent) commandServer
}

// Handlers are the handlers of a program's actions, by the name of the action.
type Handlers map[string]Handler

func (h Handlers) checked() (CommandHandlers, error) {
	var errs []error
	if n := len(h); n > wire.MaxActions {
		errs = append(errs, config.NewError("Options.Handlers", " has %d entries, more than %d", n, wire.MaxActions))
	}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		key := fmt.Sprintf("Options.Handlers[%.80q]", name)
		if err := wire.CheckActionName(name); err != nil {
			errs = append(errs, config.NewError(key, ": %w", err))
		}
		if h[name] == nil {
			errs = append(errs, config.NewError(key, " is nil; leave out an action that the program does not handle"))
		}
	}
	return maps.Clone(h), errors.Join(errs...)
}

func (h Handlers) callbacks(limit time.Duration, log func(string, ...any)) map[string]*callback {
	if limit == 0 {
		limit = defaultHandlerTimeout
	}
	m := make(map[string]*callback, len(h))
	for name := range h {
		m[name] = newCallback(fmt.Sprintf("Options.Handlers[%q]", name), limit, log)
	}
	return m
}

// handled is what a handler left.
type handled struct {
	result  json.RawMessage
	expired bool // its context ended by the limit before it returned
}

// callHandler calls the handler of a command.
func (q *actions) callHandler(ctx context.Context, c Command) (handled, error) {
	h := q.handlers[c.Action]
	return callValue(ctx, q.a.calls.handlers[c.Action], func(ctx context.Context) (handled, error) {
		v, err := h(ctx, c)
		if err != nil {
			return handled{expired: errors.Is(ctx.Err(), context.DeadlineExceeded)}, err
		}
		if v == nil {
			return handled{}, nil
		}
		b, err := json.Marshal(v) // a method of the author's may panic
		switch {
		case err != nil:
			return handled{}, fmt.Errorf("the result cannot be encoded as JSON: %w", err)
		case len(b) > wire.MaxResult:
			return handled{}, fmt.Errorf("the result has %d bytes as JSON, more than %d", len(b), wire.MaxResult)
		case string(b) == "null":
			return handled{}, nil
		}
		return handled{result: b}, nil
	})
}
