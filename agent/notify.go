package agent

import (
	"context"
	"strings"
	"sync"
	"time"
)

// notifyPause is the pause between two attempts to tell systemd what it must know.
const notifyPause = time.Second

// unsent is what systemd must know and has not been told, since it read nothing: without
// READY=1 it ends the service, and without STATUS= an operator sees what was true before.
type unsent struct {
	mu     sync.Mutex
	ready  error // why READY=1 was not sent; nil: it was, or is not due
	status bool
	texts  int // calls of notifyStatus; the last one decides about status
}

// notify sends a state to systemd. It waits for nobody: what could not be sent and must be
// known is sent again by notifyAgain.
func (a *Agent) notify(state string) {
	err := a.callNotify(state)
	if err != nil {
		a.log.Warn("systemd was not notified", "error", err)
	}
	a.unsent.mu.Lock()
	defer a.unsent.mu.Unlock()
	if strings.Contains(state, "READY=1") {
		a.unsent.ready = err
	}
}

// notifyStatus sends the status text, the newest one when its turn comes: Notify may be slow,
// and nothing else may wait for it.
func (a *Agent) notifyStatus() {
	a.unsent.mu.Lock()
	a.unsent.texts++
	n := a.unsent.texts
	a.unsent.mu.Unlock()
	err := a.calls.notify.call(context.Background(), func(context.Context) error {
		a.mu.Lock()
		text := a.status.String()
		a.mu.Unlock()
		return a.c.Notify("STATUS=" + text)
	})
	if err != nil {
		a.log.Warn("systemd was not notified", "error", err)
	}
	a.unsent.mu.Lock()
	defer a.unsent.mu.Unlock()
	if n == a.unsent.texts {
		a.unsent.status = err != nil
	}
}

// notifyAgain sends what is unsent until systemd has it.
func (a *Agent) notifyAgain(ctx context.Context) error {
	tick := time.NewTicker(notifyPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		a.unsent.mu.Lock()
		ready, status := a.unsent.ready != nil, a.unsent.status
		a.unsent.mu.Unlock()
		if status {
			a.notifyStatus()
		}
		if ready {
			a.notify("READY=1")
		}
	}
}
