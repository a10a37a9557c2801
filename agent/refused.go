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

// refusedError reports that the manager does not accept this node's credentials.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return "the manager refuses this node: " + e.why }

// closeWait is how long a refused session waits for the close frame.
const closeWait = 10 * time.Second

// refusal returns what a refusal means. If the connection then closes with
// wire.CloseTryLater, the manager does not know this node or has removed it: its
// operator must act, and the node is not at fault. Otherwise the credentials are wrong.
func refusal(conn *websocket.Conn, message string) error {
	why := fmt.Sprintf("%q", release.Foreign(message, release.ForeignLimit))
	conn.SetReadDeadline(time.Now().Add(closeWait))
	for range 4 { // other frames may come first
		if _, _, err := conn.ReadMessage(); err != nil {
			if wait, ok := tryLater(err); ok {
				return &busyError{why: "the manager refuses this node for now: " + why, retryAfter: wait}
			}
			break
		}
	}
	return &refusedError{why}
}

// tryLater returns how long a close frame asks to wait.
func tryLater(err error) (time.Duration, bool) {
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != wire.CloseTryLater {
		return 0, false
	}
	return min(wire.ParseTryLater(closed.Text), maxRetryAfter), true
}

// readError returns a busyError for the close frame of a manager that asks to come
// back later, and err otherwise.
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

// pauseAfter returns how long to wait if a manager asks for at least asked and the
// node would wait for pause: longer than asked, and random, so that not all nodes
// return at once.
func pauseAfter(asked, pause time.Duration) time.Duration {
	if asked == 0 {
		return pause
	}
	return asked + max(pause, time.Duration(rand.Int64N(int64(min(asked/4, 15*time.Second))+1)))
}
