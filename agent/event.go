package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"golang.org/x/time/rate"
)

// Limits of Agent.Report. The outbox has room for the events of upgrades whatever the service
// reports, and a service that reports the same each second wears no flash out.
const (
	maxOwnEvents  = 100 // that the manager has not acknowledged
	ownEventBurst = 30
	ownEventEvery = 10 * time.Second
)

// Event is an event of the service.
type Event struct {
	Severity release.Severity // release.Info, Warning or Critical
	// Category groups the service's events: up to 32 of a-z, 0-9 and "_", and first a letter. "upgrade" and
	// "identity" are reserved.
	Category string
	Message  string // 1 to 1,000 bytes of text
}

// ErrTooManyEvents is wrapped by the error of Report for an event that was not taken.
var ErrTooManyEvents = errors.New("too many events")

func isCategory(s string) bool {
	for i, c := range []byte(s) {
		if letter := 'a' <= c && c <= 'z'; !letter && (i == 0 || (c < '0' || c > '9') && c != '_') {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 32
}

func (e Event) check() error {
	var errs []error
	if s := e.Severity; s != release.Info && s != release.Warning && s != release.Critical {
		errs = append(errs, fmt.Errorf("severity %q: it must be info, warning or critical", s))
	}
	if !isCategory(e.Category) || e.Category == wire.CategoryUpgrade || e.Category == "identity" {
		errs = append(errs, fmt.Errorf("category %q: it must be up to 32 of a-z, 0-9 and \"_\", first a letter, and not %q or \"identity\"", e.Category, wire.CategoryUpgrade))
	}
	if n := len(e.Message); n == 0 || n > maxReason {
		errs = append(errs, fmt.Errorf("the message has %d bytes: it must have 1 to %d", n, maxReason))
	}
	return errors.Join(errs...)
}

// Report stores an event of the service, which the manager shows, until the manager has it. When
// Report returns nil, the event is on disk, and survives a restart and an upgrade. It takes up to 30 events at
// once and then one every 10 s, and none while the manager has not acknowledged 100; its error
// then wraps ErrTooManyEvents. Run need not run.
func (a *Agent) Report(ctx context.Context, e Event) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("event: %w", err)
	}
	l := a.c.Layout
	err := l.Locked(ctx, func() error {
		entries, _, err := l.Outbox().List()
		if err != nil {
			return err
		}
		own := 0
		for _, o := range entries {
			if o.Event != nil && o.Event.Own != nil {
				own++
			}
		}
		if own >= maxOwnEvents {
			return fmt.Errorf("%w: the manager has not acknowledged %d", ErrTooManyEvents, own)
		}
		if !a.ownEvents.Allow() {
			return fmt.Errorf("%w: more than one in %v", ErrTooManyEvents, ownEventEvery)
		}
		return l.Outbox().Put(state.Entry{ID: "own." + rand.Text(), Time: time.Now(), Event: &state.Event{
			Message: release.Foreign(e.Message, maxReason), Own: &state.OwnEvent{Severity: e.Severity, Category: e.Category},
		}})
	})
	if err != nil {
		return fmt.Errorf("event: %w", err)
	}
	wake(a.outbox)
	return nil
}

// SetStatusText sets what the service says of itself in STATUS=, where `systemctl status` shows
// it: one line of up to 200 bytes, after the version that runs. "" removes it.
func (a *Agent) SetStatusText(text string) {
	a.setStatus(func(w *statusText) { w.own = release.Foreign(text, maxOwnStatus) })
}

const maxOwnStatus = 200 // bytes

func newOwnEvents() *rate.Limiter { return rate.NewLimiter(rate.Every(ownEventEvery), ownEventBurst) }
