//go:build !sim

package agent

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// middlebox forwards connections to target, unless their first bytes are more than a packet
// has, while it swallows. Those it reads without an answer, or closes.
type middlebox struct {
	addr           string
	swallows       atomic.Bool
	closes         bool
	passed, caught atomic.Int32
}

func newMiddlebox(t *testing.T, target string, closes bool) *middlebox {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	m := &middlebox{addr: l.Addr().String(), closes: closes}
	m.swallows.Store(true)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go m.forward(in, target)
		}
	}()
	return m
}

func (m *middlebox) forward(in net.Conn, target string) {
	defer in.Close()
	hello := make([]byte, 16<<10)
	n, err := in.Read(hello)
	if err != nil {
		return
	}
	if n > 1400 && m.swallows.Load() {
		m.caught.Add(1)
		if !m.closes {
			io.Copy(io.Discard, in) // until the client gives up
		}
		return
	}
	m.passed.Add(1)
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	out.Write(hello[:n])
	go func() { io.Copy(out, in); out.Close() }()
	io.Copy(in, out)
}

// behindAMiddlebox returns a node whose manager, which answers 404, is behind one.
func behindAMiddlebox(t *testing.T, closes bool) (*middlebox, node) {
	t.Helper()
	ca, server := authority(t, "manager")
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{server}, MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	box := newMiddlebox(t, strings.TrimPrefix(s.URL, "https://"), closes)
	c := rootWith(t, "wss://"+box.addr)
	c.Manager.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.Manager.CAFile, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	return box, c
}

// A manager behind something that swallows a long ClientHello is reached without the
// post-quantum key share, by TLS 1.3 as before: by the next session, and by the same probe.
func TestAManagerBehindAMiddlebox(t *testing.T) {
	t.Parallel()
	for _, closes := range []bool{false, true} {
		box, c := behindAMiddlebox(t, closes)
		r, err := c.resolve()
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.dialer()
		if err != nil {
			t.Fatal(err)
		}
		d.HandshakeTimeout = time.Second
		if _, err = dial(t.Context(), d, r.URLs[0]); !isUnanswered(err) || box.caught.Load() != 1 {
			t.Errorf("closes %v: %v, %d were swallowed", closes, err, box.caught.Load())
		}
	}
	box, c := behindAMiddlebox(t, true)
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"closed the connection", "404", "404"} { // the manager has no such page
		if err := a.session(t.Context(), a.c.URLs[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if box.caught.Load() != 1 || box.passed.Load() != 2 {
		t.Errorf("%d were swallowed, %d passed", box.caught.Load(), box.passed.Load())
	}
	report, err := Probe(t.Context(), a.c.Config, ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err == nil || !strings.Contains(err.Error(), "404") || box.caught.Load() != 2 {
		t.Errorf("the probe: %v", err)
	}
}

// Of the kinds of failure, only a handshake without an answer is tried again.
func TestOnlyAnUnansweredHandshakeIsTriedAgain(t *testing.T) {
	t.Parallel()
	box, c := behindAMiddlebox(t, true)
	box.swallows.Store(false)
	ca, _ := authority(t, "other")
	if err := os.WriteFile(c.Manager.CAFile, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := c.resolve()
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.dialer()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t.Context(), d, r.URLs[0]); err == nil || !strings.Contains(err.Error(), "manager.ca_file") || isUnanswered(err) || box.passed.Load() != 1 {
		t.Errorf("%v, %d connections", err, box.passed.Load())
	}
}

// An https proxy is reached in the same way.
func TestAnHTTPSProxyBehindAMiddlebox(t *testing.T) {
	t.Parallel()
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer proxy.Close()
	box := newMiddlebox(t, strings.TrimPrefix(proxy.URL, "https://"), true)
	c := rootWith(t, "wss://manager.invalid")
	c.Manager.Proxy = config.NewSecret("https://" + box.addr)
	r, err := c.resolve()
	if err != nil {
		t.Fatal(err)
	}
	r.proxyRoots = proxy.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	d, err := r.dialer()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t.Context(), d, r.URLs[0]); !isUnanswered(err) {
		t.Errorf("at first: %v", err)
	}
	d.TLSClientConfig.CurvePreferences = cert.Classical()
	if _, err := dial(t.Context(), d, r.URLs[0]); err == nil || isUnanswered(err) || box.passed.Load() != 1 || box.caught.Load() != 1 {
		t.Errorf("%v: %d were swallowed, %d passed", err, box.caught.Load(), box.passed.Load())
	}
}

// The agent remembers what a manager answers, so that it waits in vain only once, and logs
// that once.
func TestTheKeyShareIsRemembered(t *testing.T) {
	t.Parallel()
	var up websocket.Upgrader
	m := behindTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		conn.ReadMessage()
		peer{t, conn, nil}.send(&wire.AuthOK{})
	}))
	box := newMiddlebox(t, strings.TrimPrefix(m.URL, "https://"), true)
	m.url = "wss://" + box.addr
	c := registeredNode(t, m)
	log := &lines{}
	c.Log = logTo(log, slog.LevelDebug)
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int32(4) { // the first is in vain
		a.session(t.Context(), m.url)
		if box.caught.Load() != 1 || box.passed.Load() != i {
			t.Errorf("session %d: %d were swallowed, %d passed", i+1, box.caught.Load(), box.passed.Load())
		}
	}
	if n := strings.Count(log.String(), "without the post-quantum key share"); n != 1 {
		t.Errorf("logged %d times: %s", n, log)
	}
}

// An outage answers no handshake either: after a day the post-quantum key share is offered again.
func TestTheKeyShareIsOfferedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{keyShares: map[string]keyShare{}}
		const url = "wss://h"
		full := func() bool {
			d := &websocket.Dialer{TLSClientConfig: &tls.Config{}}
			a.offer(url, d)
			return d.TLSClientConfig.CurvePreferences == nil
		}
		lost := unansweredError{errors.New("lost")}
		for range 2 {
			a.noteOffer(url, lost)
			if full() {
				t.Fatal("the full offer after one that was not answered")
			}
			time.Sleep(cert.ClassicalFor)
			if !full() {
				t.Fatal("no full offer after a day")
			}
		}
	})
}
