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

// enter adds a new WebSocket. If there are too many, the oldest one ends.
func (t *strangers) enter(s *session) {
	old, ended, ok := t.room.Add(s.source, s, func(*session) bool { return true })
	if ended {
		old.crowdedOut()
	}
	if !ok {
		s.crowdedOut()
	}
}

// authenticated removes a session. It reports false if the session was ended to make
// room.
func (t *strangers) authenticated(s *session) bool { return t.room.Remove(s.source, s) }

func (t *strangers) leave(s *session) { t.room.Remove(s.source, s) }

// crowdedOut ends a session that did not authenticate while others connected.
func (s *session) crowdedOut() {
	go func() { // the peer may not read; the close frame has a deadline
		s.socket.close(websocket.CloseTryAgainLater, "too many sockets from this address have not authenticated")
		s.cancel()
	}()
}
