package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/bilbycast/edge-agent/wire"
)

// reconnect are the pauses before the next try, each with full jitter: a
// manager that restarts must not get its whole fleet back in one second.
var reconnect = []time.Duration{1 * time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second}

const (
	steady        = 60 * time.Second // a session this long resets the pauses
	maxRetryAfter = time.Hour        // of what a manager may ask for
	dialTimeout   = 15 * time.Second
	writeTimeout  = 10 * time.Second
	// handlerTimeout also bounds the checks and writes of one turn of the loop.
	handlerTimeout = 20 * time.Second

	// sharedSessions is how many short sessions in a row, ended by the manager,
	// look like another device with the same credentials.
	sharedSessions = 3
	// sharedPause is how long a node waits that shares its credentials; it doubles
	// up to maxSharedPause. Two such nodes end each other's sessions.
	sharedPause    = time.Minute
	maxSharedPause = 15 * time.Minute
)

// connect holds a session with the manager until ctx is done, trying each URL
// in turn.
func (a *Agent) connect(ctx context.Context) error {
	fails, shared := 0, 0
	refused := false // the manager said that these credentials are wrong, and did not accept them since
	lost := time.Now()
	for i := 0; ; i++ {
		url := a.c.URLs[i%len(a.c.URLs)]
		began := time.Now()
		a.stir(dialTimeout + writeTimeout + wire.AuthTimeout)
		err := a.session(ctx, url)
		authenticated := a.setAuthenticated(false)
		if authenticated {
			lost = time.Now()
		}
		if ctx.Err() != nil {
			return nil
		}
		short := time.Since(began) < steady
		if !short {
			fails = 0
		}
		pause := time.Duration(rand.Int64N(int64(reconnect[min(fails, len(reconnect)-1)])))
		fails++
		switch {
		case authenticated && short && endedByManager(err):
			shared++
		case authenticated:
			shared = 0
		}
		if shared >= sharedSessions || shared > 1 && replaced(err) {
			most := min(maxSharedPause, sharedPause<<min(shared-2, 10))
			pause = most/2 + time.Duration(rand.Int64N(int64(most/2)))
			err = &busyError{why: fmt.Sprintf("the manager ended %d sessions in a row within %v each (%v): another device probably uses this node's credentials.json, as a cloned disk image does; "+
				"stop the service on one of the two, remove its credentials.json, set a new registration_token, and start it", shared, steady, err)}
		}
		var busy *busyError
		var no *refusedError
		refused = !authenticated && (refused || errors.As(err, &no))
		if errors.As(err, &busy) {
			pause = after(busy.retryAfter, pause)
			// A manager that only limits wrong credentials is not at fault.
			if !busy.limited || !refused {
				a.excuse(&busyError{why: busy.why, retryAfter: pause})
			}
		}
		a.say(func(w *words) { w.manager = Connection{URL: url, Since: lost, Problem: err.Error()}.String() })
		a.stir(pause)
		a.log.Warn().Err(err).Str("manager", url).Str("retry_in", pause.Round(time.Millisecond).String()).Msg("not connected to the manager")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// busyError is a manager that says that it, not the node, has a problem.
type busyError struct {
	why        string
	retryAfter time.Duration
	limited    bool // it may be that it only limits how often a node tries
}

func (e *busyError) Error() string { return e.why }

// excuse records that the manager is at fault, for as long as it asks to wait.
func (a *Agent) excuse(e *busyError) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault, a.faultAt = e.why, time.Now().Add(e.retryAfter)
}

// setAuthenticated returns what it was before.
func (a *Agent) setAuthenticated(v bool) (before bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, a.authenticated = a.authenticated, v
	return before
}

func retryAfter(v string) time.Duration {
	if secs, err := strconv.Atoi(v); err == nil && secs > 0 {
		return min(time.Duration(min(secs, 1<<20))*time.Second, maxRetryAfter)
	}
	return 0
}
