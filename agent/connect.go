package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// reconnectDelays are the longest pauses before the next attempts. Each pause is
// random below that: a manager that restarts must not get its whole fleet back in
// one second.
var reconnectDelays = []time.Duration{1 * time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second}

const (
	longSession   = 60 * time.Second // a session this long resets the pauses
	maxRetryAfter = time.Hour        // that a manager may ask for
	// connectTimeout is how long a name, and each of its addresses, may give no answer.
	connectTimeout = 15 * time.Second
	// silentTimeout is how long a manager, or a proxy, may send no byte before the session is
	// authenticated. A lost packet alone takes half of that where a round trip takes 5 s.
	silentTimeout = 30 * time.Second
	// dialTimeout bounds an attempt in which bytes arrive, until the WebSocket is open: 256 KiB
	// of handshake at 32 kbit/s, and four addresses before that.
	dialTimeout = 3 * time.Minute
	// writeTimeout is how long writeChunk bytes of a message may take.
	writeTimeout = 10 * time.Second
	writeChunk   = 4 << 10
	// handlerTimeout bounds the checks and writes of one turn of the loop.
	handlerTimeout = 20 * time.Second

	// sharedSessions is how many short sessions in a row, all ended by the manager,
	// indicate another device with the same credentials.
	sharedSessions = 3
	// sharedPause is how long a node with shared credentials waits; it doubles up to
	// maxSharedPause. Two such nodes end each other's sessions.
	sharedPause    = time.Minute
	maxSharedPause = 15 * time.Minute
)

// connect keeps a session with the manager until ctx is done, and tries the URLs
// in turn.
func (a *Agent) connect(ctx context.Context) error {
	if len(a.c.URLs) == 0 {
		return a.withoutManager(ctx)
	}
	fails, shared := 0, 0
	refused := false // the manager called these credentials wrong, and has not accepted them since
	lost := time.Now()
	for i := 0; ; i++ {
		url := a.c.URLs[i%len(a.c.URLs)]
		began := time.Now()
		err := a.session(ctx, url)
		a.tries.ended(url, began, err)
		authenticated := a.setAuthenticated(false)
		if authenticated {
			lost = time.Now()
		}
		if ctx.Err() != nil {
			return nil
		}
		short := time.Since(began) < longSession
		if !short {
			fails = 0
		}
		pause := pace(time.Duration(rand.Int64N(int64(reconnectDelays[min(fails, len(reconnectDelays)-1)]))))
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
				"stop the service on one of the two, remove its credentials.json, set a new registration_token, and start it", shared, longSession, err)}
		}
		var busy *busyError
		var no *refusedError
		refused = !authenticated && (refused || errors.As(err, &no))
		if errors.As(err, &busy) {
			pause = pauseAfter(busy.retryAfter, pause)
			// A manager that limits attempts with wrong credentials is not at fault.
			if !busy.limited || !refused {
				a.setManagerFault(&busyError{why: busy.why, retryAfter: pause})
			}
		}
		a.setConnection(Connection{URL: url, Since: lost, Problem: err.Error()})
		if a.tries.due(a.c.URLs) { // a trial asks: neither a pause nor the manager's wish counts
			pause = 0
		}
		a.expectLoop(pause)
		a.log.Warn("not connected to the manager", "error", err, "manager", url, "retry_in", pause.Round(time.Millisecond).String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		case <-a.tries.wake:
		}
	}
}

// busyError reports that the manager, not the node, has a problem.
type busyError struct {
	why        string
	retryAfter time.Duration
	limited    bool // it may only limit how often a node tries
}

func (e *busyError) Error() string { return e.why }

// setManagerFault records that the manager is at fault for as long as it asks to wait.
func (a *Agent) setManagerFault(e *busyError) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.managerFault, a.managerFaultUntil = e.why, time.Now().Add(e.retryAfter)
}

// setAuthenticated records whether the session is authenticated, and returns the
// value before.
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
