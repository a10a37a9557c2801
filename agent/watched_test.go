//go:build !sim

package agent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// put stores an event of a rollback, and returns the outbox.
func put(t *testing.T, l state.Layout, id string, watch bool) state.Outbox {
	t.Helper()
	box := l.Outbox()
	if err := l.Locked(t.Context(), func() error {
		return box.Put(state.Entry{ID: id, Time: time.Now().UTC(), Event: &state.Event{Code: release.RolledBack, Message: "1.1.0 was rolled back", Watch: watch}})
	}); err != nil {
		t.Fatal(err)
	}
	return box
}

// A rollback whose cause is not decided yet is reported once it is, and other events do not
// wait for it.
func TestAWatchedEventWaitsForItsVerdict(t *testing.T) {
	t.Parallel()
	events := make(chan *wire.Event, 9)
	c := rootWith(t, manager(t, func(p peer) {
		p.welcome()
		if p.auth.NodeID == "" {
			return // the node registers, and connects again
		}
		for range 3 {
			m := p.until("an event", func(m wire.Message) bool { _, ok := m.(*wire.Event); return ok })
			e, _ := m.(*wire.Event)
			events <- e
		}
		p.drain()
	}))
	l, err := state.At(c.Service.InstallRoot)
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, "t.left", true) // by an agent that ended, and nothing is to be watched any more
	a := runAgent(t, c)
	if e := <-events; e == nil || e.EventID != "t.left" || e.Details.Dependency {
		t.Errorf("sent: %+v", e)
	}
	box := put(t, l, "t.watched", true)
	put(t, l, "t.later", false)
	wake(a.outbox)
	if e := <-events; e == nil || e.EventID != "t.later" || e.Details.Dependency {
		t.Errorf("sent: %+v", e)
	}
	if entries, _, err := box.List(); err != nil || !slices.ContainsFunc(entries, state.Entry.Watched) {
		t.Errorf("the outbox: %+v, %v", entries, err)
	}
	if err := l.Locked(t.Context(), func() error {
		return box.Amend("t.watched", func(e *state.Entry) { e.Event.Watch, e.Event.Dependency = false, true })
	}); err != nil {
		t.Fatal(err)
	}
	wake(a.outbox)
	if e := <-events; e == nil || e.EventID != "t.watched" || !e.Details.Dependency {
		t.Errorf("sent: %+v", e)
	}
}

// A service that is about to restart does not wait for it either.
func TestDrainDoesNotWaitForAWatchedEvent(t *testing.T) {
	t.Parallel()
	o := newTrial(t, t.TempDir())
	o.c.DrainTime = time.Hour
	if err := os.RemoveAll(o.c.Layout.OutboxDir()); err != nil { // what the swap reported
		t.Fatal(err)
	}
	put(t, o.c.Layout, "t.watched", true)
	if err := o.leave(t.Context()); !errors.Is(err, ErrRestart) {
		t.Error(err)
	}
}

// An earlier agent, which knows neither field, reads such an entry, and sends it at once.
func TestAnEarlierAgentReadsAWatchedEvent(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, "t.watched", true)
	files, err := filepath.Glob(filepath.Join(l.OutboxDir(), "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var e struct { // of an earlier agent
		ID    string `json:"id"`
		Event *struct {
			Code    release.Code `json:"code"`
			Message string       `json:"message"`
		} `json:"event"`
		Ack *struct{} `json:"ack"`
	}
	if err := json.Unmarshal(b, &e); err != nil || e.ID != "t.watched" || e.Ack != nil || e.Event == nil || e.Event.Code != release.RolledBack || e.Event.Message == "" {
		t.Errorf("%s: %+v, %v", b, e, err)
	}
}
