package server_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// pipes is a net.Listener whose connections are pipes without a buffer: a write waits
// until it is read.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// simulated serves a manager in simulated time, and calls test with a function that
// opens a connection to it.
func simulated(t *testing.T, test func(t *testing.T, dial func() net.Conn)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(t.Context(), filepath.Join(dir, "db"))
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		m, err := server.New(server.Config{Store: st, PasswordMemory: 32, AdminToken: admin, Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		l := &pipes{make(chan net.Conn), make(chan struct{})}
		hs := m.HTTPServer()
		hs.Protocols = new(http.Protocols)
		hs.Protocols.SetHTTP1(true)
		hs.Protocols.SetUnencryptedHTTP2(true)
		served := make(chan error, 1)
		go func() { served <- hs.Serve(l) }()
		test(t, func() net.Conn {
			ours, theirs := net.Pipe()
			ours.SetReadDeadline(time.Now().Add(2 * time.Hour)) // instead of an endless test
			l.conns <- theirs
			return ours
		})
		if err := hs.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

const head = "Host: x\r\nAuthorization: Bearer " + admin + "\r\n"

// A request of any call whose body does not arrive in time ends. A slow body that
// arrives in time is accepted.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"a call":          "POST /api/v1/groups HTTP/1.1\r\n" + head + "Content-Length: 50\r\n\r\n{",
		"chunks":          "POST /api/v1/groups HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
		"with a key":      "POST /api/v1/groups HTTP/1.1\r\n" + head + "Idempotency-Key: k\r\nContent-Length: 50\r\n\r\n{",
		"no such call":    "POST /nowhere HTTP/1.1\r\n" + head + "Content-Length: 50\r\n\r\n{",
		"without a token": "POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
		"of a GET":        "GET /api/v1/nodes HTTP/1.1\r\n" + head + "Content-Length: 50\r\n\r\n{",
		"of a stream":     "GET " + wire.Path + " HTTP/1.1\r\n" + head + "Content-Length: 50\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			simulated(t, func(t *testing.T, dial func() net.Conn) {
				c := dial()
				defer c.Close()
				began := time.Now()
				go io.WriteString(c, begin)
				if _, err := io.Copy(io.Discard, c); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 31*time.Second {
					t.Errorf("the connection ended after %v", took)
				}
			})
		})
	}
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		simulated(t, func(t *testing.T, dial func() net.Conn) {
			c := dial()
			defer c.Close()
			body := `{"name":"slow"}`
			go func() {
				fmt.Fprintf(c, "POST /api/v1/groups HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n", head, len(body))
				for i := range body {
					io.WriteString(c, body[i:i+1])
					time.Sleep(time.Second)
				}
				time.Sleep(time.Minute) // the limit is the request's, not the connection's
				io.WriteString(c, "GET /api/v1/groups HTTP/1.1\r\n"+head+"\r\n")
			}()
			r := bufio.NewReader(c)
			for _, want := range []int{201, 200} {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				if io.Copy(io.Discard, resp.Body); resp.StatusCode != want {
					t.Errorf("got %d, want %d", resp.StatusCode, want)
				}
			}
		})
	})
}

// An answer or a stream that the client does not read ends. A stream that it reads
// continues.
func TestAnswersThatNobodyReads(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/api/v1/openapi.json", "/api/v1/events/stream"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			simulated(t, func(t *testing.T, dial func() net.Conn) {
				c := dial()
				defer c.Close()
				io.WriteString(c, "GET "+path+" HTTP/1.1\r\n"+head+"\r\n")
				if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				began := time.Now()
				if n, err := io.Copy(io.Discard, c); err != nil || time.Since(began) > 0 {
					t.Errorf("the connection went on for %v, and had %d bytes: %v", time.Since(began), n, err)
				}
			})
		})
	}
	t.Run("a stream that is read", func(t *testing.T) {
		t.Parallel()
		simulated(t, func(t *testing.T, dial func() net.Conn) {
			c := dial()
			began := time.Now()
			time.AfterFunc(time.Hour, func() { c.Close() })
			io.WriteString(c, "GET /api/v1/events/stream HTTP/1.1\r\n"+head+"\r\n")
			io.Copy(io.Discard, c)
			if took := time.Since(began); took != time.Hour {
				t.Errorf("it ended after %v", took)
			}
		})
	})
}

// A token's stream ends with the token.
func TestAStreamEndsWhenItsTokenExpires(t *testing.T) {
	t.Parallel()
	simulated(t, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		defer c.Close()
		body := `{"name":"t","role":"viewer","expires_in_secs":3600}`
		go fmt.Fprintf(c, "POST /api/v1/tokens HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_, rest, _ := strings.Cut(string(b), `"token":"`)
		token, _, _ := strings.Cut(rest, `"`)
		began := time.Now()
		get := func(path string) *http.Response {
			go io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\n\r\n")
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		io.Copy(io.Discard, get("/api/v1/events/stream").Body)
		if took := time.Since(began); took < time.Hour-time.Second || took > time.Hour+time.Second {
			t.Errorf("the stream ended after %v", took)
		}
		resp = get("/api/v1/nodes")
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusUnauthorized || !strings.Contains(string(b), "the token expired at ") {
			t.Errorf("%d %s", resp.StatusCode, b)
		}
	})
}

// The number of streams is bounded by identity.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	m := start(t)
	open := func(token string) int {
		resp := m.do(token, "GET", "/api/v1/events/stream", "", nil)
		t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		return resp.StatusCode
	}
	for i := range 32 {
		if got := open(admin); got != 200 {
			t.Fatalf("stream %d: %d", i, got)
		}
	}
	if got := open(admin); got != http.StatusTooManyRequests {
		t.Errorf("one more: %d", got)
	}
	var made struct{ Token string }
	m.into(201, "POST", "/api/v1/tokens", `{"name":"t","role":"viewer","groups":["*"]}`, &made)
	if got := open(made.Token); got != 200 {
		t.Errorf("of another token: %d", got)
	}
}

// The number of connections of a source is bounded: the ones that are idle longest end.
// Sessions of nodes do not count. It runs beside no other test of this package, since it has
// hundreds of connections that must be served before their time is over.
func TestConnectionsAreBounded(t *testing.T) {
	m := start(t)
	hs := httptest.NewUnstartedServer(m)
	hs.Config = m.HTTPServer()
	hs.Start()
	t.Cleanup(func() { m.Close(); hs.Close() })
	m.http = hs
	for range 300 {
		n := m.dial()
		n.send(auth())
		if _, ok := n.next().(*wire.RegisterAck); !ok {
			t.Fatal("not registered")
		}
		defer func() {
			n.send(&wire.Ping{})
			if _, ok := n.next().(*wire.Pong); !ok {
				t.Error("a session ended")
			}
		}()
	}
	for range 5 { // what is being served does not give way
		resp := m.do(admin, "GET", "/api/v1/events/stream", "", nil)
		ended := m.follow(resp.Body)
		defer func() {
			select {
			case <-ended:
				t.Error("a stream ended")
			default:
			}
		}()
	}
	ended := make(chan error, 600)
	for i := range 600 {
		c, err := net.Dial("tcp", hs.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if i%2 == 0 { // a request that does not arrive
			io.WriteString(c, "G")
		}
		go func() {
			c.SetReadDeadline(time.Now().Add(5 * time.Second)) // before the time for headers is over
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
	}
	for range 600 + 5 - 512 {
		if err := <-ended; errors.Is(err, net.ErrClosed) || isTimeout(err) {
			t.Fatal("more than 512 connections of one source are open")
		}
	}
	if status, _ := m.call("GET", "/api/v1/nodes", ""); status != 200 {
		t.Errorf("an honest neighbour: %d", status)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
