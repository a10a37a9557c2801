package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"golang.org/x/time/rate"
)

const (
	maxWaitingActions = 16 // commands that wait for a handler
	actionBurst       = 32 // commands that begin without a pause
	actionEvery       = 5 * time.Second
	// maxActionAnswers is how many answers wait for a session; the oldest makes room. The
	// record on disk has it still.
	maxActionAnswers = state.MaxActionRecords

	interruptedText = "the service stopped while the command was carried out; it is not carried out again"
)

// commandServer serves the author's commands of one agent. It is an interface, as
// CommandHandlers is: the linker leaves all of it out of a program without handlers.
type commandServer interface {
	// names returns the names of the actions, sorted.
	names() []string
	// accept takes a command to its handler, and returns its answer if that is known; nil
	// means that it comes later. It reads the disk.
	accept(m *wire.Command) *wire.CommandAck
	// serve carries out commands, one at a time, until ctx is done. It begins none once a new
	// version waits for the restart: that version gets what waits.
	serve(ctx context.Context)
	// due has an entry while an answer may wait for a session, and answer sends those that do.
	due() chan struct{}
	answer(send func(*wire.CommandAck) error) error
	// idle reports whether no handler runs, and no answer waits for a session.
	idle() bool
}

// actions is the commandServer of Handlers. Any goroutine may call its methods; the goroutine
// of serve alone writes the records.
type actions struct {
	a        *Agent
	handlers Handlers
	begins   *rate.Limiter // limits how much they write to the disk

	mu      sync.Mutex
	waiting []Command
	running string             // id of the command that is carried out; "": none
	answers []*wire.CommandAck // that no session has sent
	arrived chan struct{}      // has an entry while waiting may have one
	unsent  chan struct{}      // has an entry while answers may have one
}

// server implements CommandHandlers.
func (h Handlers) server(a *Agent) commandServer {
	return &actions{a: a, handlers: h, begins: rate.NewLimiter(rate.Every(actionEvery), actionBurst), arrived: make(chan struct{}, 1), unsent: make(chan struct{}, 1)}
}

func (q *actions) names() []string { return slices.Sorted(maps.Keys(q.handlers)) }

func (q *actions) due() chan struct{} { return q.unsent }

func (q *actions) accept(m *wire.Command) *wire.CommandAck {
	c := Command{ID: m.CommandID, Action: m.Action.Type, Params: m.Action.Params, Raw: m.Action.Raw}
	if n := len(c.Params); n > wire.MaxParams {
		return &wire.CommandAck{CommandID: c.ID, ErrorCode: wire.ParamsTooLarge, Error: fmt.Sprintf("the parameters have %d bytes, more than %d", n, wire.MaxParams)}
	}
	if q.knows(c.ID) {
		return nil
	}
	switch r, ok, err := q.a.c.Layout.Actions().Get(c.ID); {
	case errors.Is(err, state.ErrActionDamaged):
		q.a.log.Error("the record of a command cannot be used; the command is not carried out again", "command_id", c.ID, "error", err)
		return interrupted(c.ID)
	case err != nil:
		return q.notBegun(c, err)
	case ok && r.Done:
		q.a.log.Debug("command repeated; answered with its recorded result", "command_id", c.ID)
		return actionAck(r)
	case ok:
		return interrupted(c.ID)
	}
	if !q.add(c) {
		return &wire.CommandAck{CommandID: c.ID, ErrorCode: wire.ActionBusy, Error: fmt.Sprintf("%d commands wait already; send it again later", maxWaitingActions)}
	}
	return nil
}

// knows reports whether a command waits, is carried out, or has an answer that was not sent.
func (q *actions) knows(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, ack := range q.answers {
		if ack.CommandID == id {
			return true
		}
	}
	return q.running == id || slices.ContainsFunc(q.waiting, func(c Command) bool { return c.ID == id })
}

// add adds a command to those that wait, unless there are too many.
func (q *actions) add(c Command) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxWaitingActions {
		return false
	}
	q.waiting = append(q.waiting, c)
	wake(q.arrived)
	return true
}

// waits reports whether a command waits.
func (q *actions) waits() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) > 0
}

// next returns the oldest command that waits, which runs from now on.
func (q *actions) next() Command {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.waiting[0]
	q.waiting[0] = Command{} // so that its parameters can be freed
	q.waiting, q.running = q.waiting[1:], c.ID
	return c
}

// ended ends the command that runs, with its answer. A nil answer leaves the command to the
// record of it, or to its repetition.
func (q *actions) ended(ack *wire.CommandAck) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running = ""
	if ack == nil {
		return
	}
	q.answers = append(q.answers, ack)
	q.answers = slices.Delete(q.answers, 0, max(0, len(q.answers)-maxActionAnswers))
	wake(q.unsent)
}

func (q *actions) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running == "" && len(q.answers) == 0
}

// pending returns the answers that no session has sent.
func (q *actions) pending() []*wire.CommandAck {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.answers)
}

// sent removes an answer that was written to a connection. If it is lost there, the manager
// sends the command again, and gets the answer of the record.
func (q *actions) sent(ack *wire.CommandAck) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.answers = slices.DeleteFunc(q.answers, func(o *wire.CommandAck) bool { return o == ack })
}

func (q *actions) answer(send func(*wire.CommandAck) error) error {
	for _, ack := range q.pending() {
		if err := send(ack); err != nil {
			return err
		}
		q.sent(ack)
	}
	return nil
}

func (q *actions) serve(ctx context.Context) {
	q.endInterrupted()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.a.swapped:
			return
		case <-q.arrived:
		}
		for q.waits() && q.begins.Wait(ctx) == nil && !q.a.isSwapped() {
			q.ended(q.carryOut(ctx, q.next()))
		}
	}
}

func (a *Agent) isSwapped() bool {
	select {
	case <-a.swapped:
		return true
	default:
		return false
	}
}

// endInterrupted answers the commands that an earlier process, or run, did not end.
func (q *actions) endInterrupted() {
	records, err := q.a.c.Layout.Actions().Interrupted()
	if err != nil {
		q.a.log.Error("the records of commands cannot be read; commands that were interrupted are answered when the manager repeats them", "error", err)
	}
	for _, r := range records {
		q.a.log.Warn("command interrupted by the end of the process; it is answered as failed", "command_id", r.ID, "action", r.Action)
		r.Done, r.Code, r.Error = true, wire.ActionInterrupted, interruptedText
		if err := q.a.c.Layout.Actions().Put(r); err != nil { // it stays interrupted
			q.a.log.Error("the result of a command was not recorded", "command_id", r.ID, "error", err)
		}
		q.ended(actionAck(r))
	}
}

// carryOut calls the handler of a command, and returns the answer. A nil answer means that the
// next start answers.
func (q *actions) carryOut(ctx context.Context, c Command) *wire.CommandAck {
	if q.a.calls.handlers[c.Action].runs() {
		return &wire.CommandAck{CommandID: c.ID, ErrorCode: wire.ActionBusy, Error: "an earlier call of the handler did not end within its limit, and still runs"}
	}
	records := q.a.c.Layout.Actions()
	r := state.ActionRecord{ID: c.ID, Action: c.Action, Began: time.Now().UTC()}
	if err := records.Put(r); err != nil { // COMMIT: from here the command is never carried out again.
		return q.notBegun(c, err)
	}
	q.a.log.Info("command began", "command_id", c.ID, "action", c.Action)
	began := time.Now()
	got, err := q.callHandler(ctx, c)
	r.Done, r.Success, r.Result = true, err == nil, got.result
	if err != nil {
		_, r.Error = codeAndText(err)
		r.Code = wire.ActionFailed
		switch {
		case ctx.Err() != nil:
			r.Code, r.Error = wire.ActionInterrupted, interruptedText
			if isCallbackError(err) && q.a.calls.handlers[c.Action].runs() {
				q.a.log.Warn("the service stops while a command is carried out; the next start answers it as failed", "command_id", c.ID, "action", c.Action)
				return nil
			}
		case got.expired, isCallbackError(err) && time.Since(began) >= q.a.calls.handlers[c.Action].limit:
			r.Code = wire.ActionTimeout
		}
	}
	if err := records.Put(r); err != nil {
		q.a.log.Error("the result of a command was not recorded; if the answer is lost, the command counts as interrupted", "command_id", c.ID, "error", err)
	}
	after := time.Since(began).Round(time.Millisecond).String()
	if r.Success {
		q.a.log.Info("command ended", "command_id", c.ID, "action", c.Action, "after", after)
	} else {
		q.a.log.Warn("command failed", "command_id", c.ID, "action", c.Action, "error_code", r.Code, "error", r.Error, "after", after)
	}
	return actionAck(r)
}

// notBegun answers a command that cannot be recorded, and is not carried out.
func (q *actions) notBegun(c Command, err error) *wire.CommandAck {
	_, why := codeAndText(fmt.Errorf("the command was not carried out, because it could not be recorded: %w", err))
	q.a.log.Error("command refused: it could not be recorded", "command_id", c.ID, "action", c.Action, "error", err)
	return &wire.CommandAck{CommandID: c.ID, ErrorCode: wire.ActionFailed, Error: why}
}

func interrupted(id string) *wire.CommandAck {
	return actionAck(state.ActionRecord{ID: id, Code: wire.ActionInterrupted, Error: interruptedText})
}

// actionAck returns the wire form of a command that has ended.
func actionAck(r state.ActionRecord) *wire.CommandAck {
	return &wire.CommandAck{CommandID: r.ID, Success: r.Success, ErrorCode: release.Code(r.Code), Error: r.Error, Result: r.Result}
}
