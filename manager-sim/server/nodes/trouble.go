package nodes

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/gorilla/websocket"
)

const (
	// storeRetry is when a node tries again that was refused because the store is away.
	storeRetry = 5 * time.Second
	// answerTime is how long a node waits for the answer to its authentication before the
	// manager closes the connection with 1013. The node itself waits for wire.AuthTimeout.
	answerTime = 8 * time.Second
	// answersTime is how long the session of a removed node stays for the answers to withdrawals.
	answersTime = 3 * time.Second
	// slowRetry is when a sending is tried again that reached its limit of time.
	slowRetry = time.Second
	// storeTime is how long a change waits for the store that nobody can repeat.
	storeTime = 5 * time.Second
)

// storeError is an error of the store during an authentication. It says nothing about the
// node.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

func awayText(trouble string) string {
	return "the database of the manager is " + trouble + "; try again later"
}

// endTrouble closes the connection of a node that the manager cannot serve: with 1013 for the
// trouble of the store, which passes by itself, and with 1011 for a defect.
func endTrouble(s *session, err error) {
	if !troubled(s.hub, err) {
		endDefect(s, err)
		return
	}
	s.socket.close(websocket.CloseTryAgainLater, awayText(cmp.Or(store.Trouble(err), "not answering")))
}

// endDefect closes the connection of a node because of a defect of the manager. It ends the
// session.
func endDefect(s *session, err error) {
	defer s.cancel()
	select {
	case <-s.ended:
		if errors.Is(err, context.Canceled) { // because the session has ended, as of a stranger that made room
			return
		}
	default:
	}
	if errors.Is(err, errEnding) {
		s.socket.close(websocket.CloseInternalServerErr, errEnding.Error())
		return
	}
	s.hub.Log.Error().Str("node_id", s.nodeID).Err(err).Msg("session ends: its messages cannot be stored")
	s.socket.close(websocket.CloseInternalServerErr, "the manager failed; see its log")
}
