package nodes

import (
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// upgrader keeps the read buffer of the HTTP server and shares write buffers, so that a
// waiting socket needs little memory.
var upgrader = websocket.Upgrader{HandshakeTimeout: 10 * time.Second, WriteBufferSize: 4 << 10, WriteBufferPool: &sync.Pool{}}

const writeTimeout = 10 * time.Second

// socket writes to a WebSocket.
type socket struct{ conn *websocket.Conn }

// close sends a close frame. It may be called while another goroutine writes.
func (k socket) close(code int, text string) {
	k.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(time.Second))
}

func (k socket) write(m wire.Message) error {
	b, err := wire.Encode(m, time.Now())
	if err != nil {
		return err
	}
	k.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return k.conn.WriteMessage(websocket.TextMessage, b)
}
