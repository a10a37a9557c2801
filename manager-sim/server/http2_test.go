package server_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// frozen is a connection that can be made to read no more.
type frozen struct {
	net.Conn
	stop atomic.Bool
	done chan struct{}
}

func (f *frozen) Read(p []byte) (int, error) {
	if f.stop.Load() {
		<-f.done
		return 0, io.EOF
	}
	return f.Conn.Read(p)
}

// client speaks HTTP/2 over one connection.
func client(dial func() net.Conn) (*http.Client, *frozen) {
	f := &frozen{Conn: dial(), done: make(chan struct{})}
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: p, DialContext: func(context.Context, string, string) (net.Conn, error) { return f, nil }}}, f
}

func request(t *testing.T, method, path string, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	return req
}

// The limits of bodies and answers apply to HTTP/2 streams, too.
func TestLimitsOfHTTP2(t *testing.T) {
	t.Parallel()
	t.Run("slow body", func(t *testing.T) {
		t.Parallel()
		simulated(t, func(t *testing.T, dial func() net.Conn) {
			c, f := client(dial)
			defer f.Close()
			r, w := io.Pipe()
			defer w.Close()
			began := time.Now()
			resp, err := c.Do(request(t, "POST", "/api/v1/groups", r))
			if err == nil {
				resp.Body.Close()
			}
			if took := time.Since(began); took > 31*time.Second || took < 29*time.Second {
				t.Errorf("the request ended after %v", took)
			}
			// The connection serves other requests.
			resp, err = c.Do(request(t, "POST", "/api/v1/groups", strings.NewReader(`{"name":"g"}`)))
			if err != nil || resp.StatusCode != 201 {
				t.Fatalf("%v %v", resp, err)
			}
			resp.Body.Close()
		})
	})
	t.Run("nobody reads", func(t *testing.T) {
		t.Parallel()
		simulated(t, func(t *testing.T, dial func() net.Conn) {
			c, f := client(dial)
			resp, err := c.Do(request(t, "GET", "/api/v1/events/stream", nil))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			f.stop.Store(true)
			time.Sleep(3 * time.Minute)
			began := time.Now()
			if _, err := io.Copy(io.Discard, f.Conn); err != nil || time.Since(began) > 0 {
				t.Errorf("the connection went on for %v: %v", time.Since(began), err)
			}
			close(f.done)
		})
	})
	t.Run("a stream that is read", func(t *testing.T) {
		t.Parallel()
		simulated(t, func(t *testing.T, dial func() net.Conn) {
			c, f := client(dial)
			began := time.Now()
			resp, err := c.Do(request(t, "GET", "/api/v1/events/stream", nil))
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(time.Hour, func() { f.Close() })
			io.Copy(io.Discard, resp.Body)
			if took := time.Since(began); took != time.Hour {
				t.Errorf("it ended after %v", took)
			}
		})
	})
}

// When too many bodies of a source arrive at once, the oldest ones end, and a new one
// is accepted.
func TestBodiesAtOnce(t *testing.T) {
	t.Parallel()
	m := start(t)
	ended := make(chan error, 80)
	for range 80 {
		c, err := net.Dial("tcp", m.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, "POST /api/v1/groups HTTP/1.1\r\n"+head+"Content-Length: 50\r\n\r\n{")
		go func() {
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
	}
	for range 80 - 64 {
		if err := <-ended; isTimeout(err) {
			t.Fatal("more than 64 bodies of one source are waited for")
		}
	}
	m.into(201, "POST", "/api/v1/groups", `{"name":"honest"}`, nil)
}
