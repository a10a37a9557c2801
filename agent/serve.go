package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Pauses between two calls of Options.Serve. After a call of more than maxServePause they start
// again at servePause.
const (
	servePause    = time.Second
	maxServePause = time.Minute
	// startExtension is the time by which systemd extends the start of a service that does not
	// serve yet, and extendEvery how often it is asked.
	startExtension = time.Minute
	extendEvery    = 20 * time.Second
)

// serving is what the agent knows of Options.Serve.
type serving struct {
	mu    sync.Mutex
	ready bool  // the service serves
	err   error // why the last call has ended; nil: none has, or the next one serves
	now   chan struct{}
}

var errNotServing = errors.New("the service does not say yet that it serves (Agent.Ready)")

// problem returns why the service does not serve, or nil.
func (s *serving) problem(serves bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !serves || s.ready:
		return nil
	case s.err != nil:
		return s.err
	}
	return errNotServing
}

// begin notes that a call begins, and returns a channel that is closed once the service serves.
func (s *serving) begin() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready, s.now = false, make(chan struct{})
	return s.now
}

// end notes why a call ended, or why none is made.
func (s *serving) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready, s.err, s.now = false, err, nil
}

// Ready reports that the service serves. Serve calls it, or what Serve started; without Serve it
// does nothing. It counts for the call of Serve that runs, and does nothing between two calls: so
// what may call it late must end before Serve returns.
func (a *Agent) Ready() {
	a.serving.mu.Lock()
	defer a.serving.mu.Unlock()
	if s := &a.serving; s.now != nil && !s.ready {
		s.ready, s.err = true, nil
		close(s.now)
	}
}

// endTrial notes that this version is kept.
func (a *Agent) endTrial() {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.keptNow:
	default:
		close(a.keptNow)
	}
}

// serve has the service restore its data after a rollback, and then serve. It returns an error
// if this start of a version on trial has failed.
func (a *Agent) serve(ctx context.Context, res state.Result, trial bool) error {
	onTrial := func() bool {
		select {
		case <-a.keptNow:
			return false
		default:
			return trial
		}
	}
	failed := func(err error) { // in a stable start the process is up, and says what it lacks
		a.serving.end(err)
		if !onTrial() && a.c.Serve != nil {
			a.ready(res)
			a.setStatus(func(w *statusText) {
				w.service = a.c.version.String() + " does not serve: " + release.Foreign(err.Error(), maxReason/4)
			})
		}
		wake(a.healthDue)
		wake(a.checkDue)
	}
	a.restore(ctx, res.State, failed)
	if ctx.Err() == nil {
		close(a.dataReady)
	}
	if a.c.Serve == nil {
		return nil
	}
	for pause := servePause; ctx.Err() == nil; pause = min(2*pause, maxServePause) {
		began := time.Now()
		over := make(chan struct{})
		ready := a.serving.begin()
		awaited := make(chan struct{})
		go func() {
			defer close(awaited)
			a.awaitReady(over, ready, res, onTrial)
		}()
		stop := func() {}
		if !onTrial() { // the trial has its own limits
			stop = a.extendStart(ctx)
		}
		err := a.calls.serve.call(ctx, func(ctx context.Context) error { return a.c.Serve(ctx, a) })
		stop()
		close(over)
		<-awaited // what it says of this call comes before what failed says
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("Options.Serve returned before its context ended")
		}
		err = fmt.Errorf("the service's own work ended: %w", err)
		if failed(err); onTrial() {
			return err
		}
		if time.Since(began) > maxServePause {
			pause = servePause
		}
		a.log.Error("the service's own work ended; it is begun again", "error", err, "retry_in", pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// afterRestoration waits until a version to which an operator rolled back has restored its data,
// and returns when its trial begins: restoring is not serving.
func (a *Agent) afterRestoration(ctx context.Context) time.Time {
	if a.attached != nil || a.c.RolledBack == nil {
		return a.startedAt
	}
	begin := time.Now()
	select {
	case <-ctx.Done():
	case <-a.restored:
	}
	return a.startedAt.Add(time.Since(begin))
}

// extendStart has systemd wait longer for READY=1, until that is sent or the function that it
// returns is called: a start that systemd ended could repair nothing.
func (a *Agent) extendStart(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(extendEvery)
		defer tick.Stop()
		for ctx.Err() == nil && !a.isReady() {
			a.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startExtension.Microseconds()))
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	return cancel
}

// awaitReady reports to systemd, in a stable start, that the service serves. It returns when over
// is closed.
func (a *Agent) awaitReady(over, ready <-chan struct{}, res state.Result, onTrial func() bool) {
	select {
	case <-over:
		return
	case <-ready:
	}
	if !onTrial() {
		a.ready(res)
	}
	wake(a.healthDue)
	wake(a.checkDue)
}
