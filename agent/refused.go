package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// refusedError is a manager that does not accept this node's credentials.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return "the manager refuses this node: " + e.why }

// closeWait is how long a refused session waits for the close frame.
const closeWait = 2 * time.Second

// refused returns what a refusal means. One that ends with wire.CloseTryLater is
// the manager's fault, or its operator's to end: it does not know this node, or
// removed it. Any other says that the credentials are wrong.
func (s *session) refused(message string) error {
	why := fmt.Sprintf("%q", release.Foreign(message, release.ForeignLimit))
	s.conn.SetReadDeadline(time.Now().Add(closeWait))
	for range 4 { // other frames may come first
		if _, _, err := s.conn.ReadMessage(); err != nil {
			if wait, ok := tryLater(err); ok {
				return &busyError{why: "the manager refuses this node for now: " + why, retryAfter: wait}
			}
			break
		}
	}
	return &refusedError{why}
}

// tryLater returns the time that a close frame asks to wait.
func tryLater(err error) (time.Duration, bool) {
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != wire.CloseTryLater {
		return 0, false
	}
	return min(wire.ParseTryLater(closed.Text), maxRetryAfter), true
}

// readError turns the close frame of a manager that asks to come back later
// into a busyError.
func readError(err error) error {
	var closed *websocket.CloseError
	if !errors.As(err, &closed) {
		return err
	}
	busy := &busyError{why: fmt.Sprintf("the manager closes with %d %q", closed.Code, release.Foreign(closed.Text, release.ForeignLimit))}
	switch closed.Code {
	case websocket.CloseTryAgainLater, websocket.CloseInternalServerErr, websocket.CloseServiceRestart:
		return busy
	case wire.CloseTryLater:
		busy.retryAfter, _ = tryLater(err)
		busy.limited = true
		return busy
	}
	return err
}

// after returns how long to wait where a manager asks for at least asked and this
// node would wait for pause: later than asked, and not all nodes at once.
func after(asked, pause time.Duration) time.Duration {
	if asked == 0 {
		return pause
	}
	return asked + max(pause, time.Duration(rand.Int64N(int64(min(asked/4, 15*time.Second))+1)))
}
