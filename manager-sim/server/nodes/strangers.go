package nodes

import (
	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
	"github.com/gorilla/websocket"
)

// Bounds of WebSockets that have not authenticated. Authenticated sessions have no
// bound: a site with thousands of nodes can be behind one address.
const (
	strangersBySource = 256
	strangersInAll    = 2048
)

// strangers are the WebSockets that have not authenticated.
type strangers struct{ room limit.Room[*session] }

// crowded is why a session ends that did not authenticate while others connected.
const crowded = "too many sockets from this address have not authenticated"

// enter adds a new WebSocket. If there are too many, the oldest one ends.
func (t *strangers) enter(s *session) {
	old, ended, ok := t.room.Add(s.source, s, func(*session) bool { return true })
	if ended {
		old.end(websocket.CloseTryAgainLater, crowded)
	}
	if !ok {
		s.end(websocket.CloseTryAgainLater, crowded)
	}
}

// authenticated removes a session. It reports false if the session was ended to make
// room.
func (t *strangers) authenticated(s *session) bool { return t.room.Remove(s.source, s) }

func (t *strangers) leave(s *session) { t.room.Remove(s.source, s) }

// end closes the connection, and does not wait for that.
func (s *session) end(code int, reason string) {
	go func() { // the peer may not read; the close frame has a deadline
		s.socket.close(code, reason)
		s.cancel()
	}()
}
