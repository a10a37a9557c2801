package line

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// Answers serves each connection as an HTTPS server with cert. h may be what the manager
// has in front of it: a portal, a gateway, or Sessions.
func Answers(cert tls.Certificate, h http.Handler) Fault {
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	return Conn(func(_ *Line, c net.Conn, _ int) {
		one := &single{conn: tls.Server(c, conf), closed: make(chan struct{})}
		s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
		s.Serve(one) // until the connection is closed
	})
}

// Status answers each request with a status and headers, which are names and values in
// turn.
func Status(cert tls.Certificate, status int, headers ...string) Fault {
	return Answers(cert, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, status, headers...) }))
}

func answer(w http.ResponseWriter, status int, headers ...string) {
	for i := 0; i+1 < len(headers); i += 2 {
		w.Header().Set(headers[i], headers[i+1])
	}
	w.WriteHeader(status)
	io.WriteString(w, "<html>"+strconv.Itoa(status)+"</html>")
}

// Terminates passes on what is between a node that accepts cert and the manager, as an
// intruder does who has that certificate. rewrite, unless it is nil, gets each part of what
// the manager sends, and must keep its length.
func Terminates(cert tls.Certificate, rewrite func([]byte) []byte) Fault {
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	return Conn(func(l *Line, c net.Conn, _ int) {
		down := tls.Server(c, conf)
		if down.Handshake() != nil {
			return
		}
		up, err := tls.Dial("tcp", l.target, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) // the node's pins are what is tested
		if err != nil {
			return
		}
		var from net.Conn = up
		if rewrite != nil {
			from = rewriter{up, rewrite}
		}
		splice(down, from)
	})
}

type rewriter struct {
	net.Conn
	rewrite func([]byte) []byte
}

func (r rewriter) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	copy(p[:n], r.rewrite(p[:n]))
	return n, err
}

// Replace is a rewrite of Terminates. Both texts have the same length.
func Replace(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(old), []byte(new)) }
}

// Sessions is a manager that decides on each session by its first message. decide returns
// true to pass the session on to the real manager. Otherwise it has done with conn what it
// wants, and returns when the connection can be closed.
func Sessions(l *Line, decide func(auth *wire.Auth, conn *websocket.Conn) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrader := websocket.Upgrader{HandshakeTimeout: 10 * time.Second}
		down, err := upgrader.Upgrade(w, r, http.Header{wire.FeaturesHeader: {wire.FeatureProbe}})
		if err != nil {
			return
		}
		defer down.Close()
		kind, first, err := down.ReadMessage()
		if err != nil {
			return
		}
		env, err := wire.Decode(first)
		if err != nil {
			return
		}
		auth, ok := env.Message.(*wire.Auth)
		if !ok || !decide(auth, down) {
			return
		}
		d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, HandshakeTimeout: 10 * time.Second}
		up, _, err := d.DialContext(r.Context(), "wss://"+l.target+r.URL.RequestURI(), nil)
		if err != nil || up.WriteMessage(kind, first) != nil {
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() { relay(down, up) })
		relay(up, down)
		wg.Wait()
	})
}

// relay passes messages on until one end closes, and then passes on why.
func relay(to, from *websocket.Conn) {
	defer to.Close()
	defer from.Close()
	for {
		kind, b, err := from.ReadMessage()
		if closed, ok := err.(*websocket.CloseError); ok && closed.Code != websocket.CloseAbnormalClosure && closed.Code != websocket.CloseNoStatusReceived {
			to.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(closed.Code, closed.Text), time.Now().Add(time.Second))
		}
		if err != nil || to.WriteMessage(kind, b) != nil {
			return
		}
	}
}

// Hold reads from conn, and answers nothing, until the node closes it.
func Hold(conn *websocket.Conn) {
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			return
		}
	}
}

// single is a listener with one connection.
type single struct {
	conn   net.Conn
	once   sync.Once
	taken  bool
	closed chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	if !s.taken {
		s.taken = true
		return &last{s.conn, s}, nil
	}
	<-s.closed
	return nil, io.EOF
}

func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return s.conn.LocalAddr() }

// last is the connection of a single.
type last struct {
	net.Conn
	of *single
}

func (c *last) Close() error {
	c.of.once.Do(func() { close(c.of.closed) })
	return c.Conn.Close()
}
