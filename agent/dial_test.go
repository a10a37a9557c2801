//go:build !sim

package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

// authority is a CA of the test's, with one server certificate for 127.0.0.1.
func authority(t *testing.T, name string) (ca []byte, server tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// The CAs of ca_file are read for each connection: one that is added there while
// the agent runs counts, and one that is gone does not end the agent.
func TestTheCAFileIsReadForEachConnection(t *testing.T) {
	t.Parallel()
	oldCA, _ := authority(t, "old")
	newCA, server := authority(t, "new")
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{server}}
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	file, linked := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "linked.pem")
	if err := os.Symlink("ca.pem", linked); err != nil {
		t.Fatal(err)
	}
	c := rootWith(t, "wss"+strings.TrimPrefix(s.URL, "https"))
	c.Manager.CAFile = linked
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		pem  []byte // nil: no file
		want string
	}{
		{nil, "no such file"},
		{[]byte("not PEM"), "has no certificate in PEM"},
		{oldCA, "set manager.ca_file"},
		{append(oldCA, newCA...), "404"},
		{oldCA, "set manager.ca_file"},
	} {
		os.Remove(file)
		if tt.pem != nil {
			if err := os.WriteFile(file, tt.pem, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.session(t.Context(), a.c.URLs[0]); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

// An https proxy is spoken to by TLS, and its certificate is checked.
func TestAnHTTPSProxy(t *testing.T) {
	t.Parallel()
	target := manager(t, func(p peer) { p.welcome(); p.drain() })
	var connects atomic.Int64
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") == "" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		connects.Add(1)
		out, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		in, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(out, buf); out.Close() }()
		go func() { io.Copy(in, out); in.Close() }()
	}))
	defer proxy.Close()
	u, _ := url.Parse(proxy.URL)
	u.User = url.UserPassword("user", "hunter2")
	c := rootWith(t, target)
	c.Manager.Proxy = config.NewSecret(u.String())
	r, err := c.resolve()
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.dialer()
	if err != nil {
		t.Fatal(err)
	}
	_, err = dial(t.Context(), d, r.URLs[0])
	if err == nil || !strings.Contains(err.Error(), "proxy https://user:xxxxx@") || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a proxy with an unknown certificate: %v", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(proxy.Certificate())
	r.proxyRoots = pool
	if d, err = r.dialer(); err != nil {
		t.Fatal(err)
	}
	conn, err := dial(t.Context(), d, r.URLs[0])
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if connects.Load() != 1 {
		t.Errorf("%d connections through the proxy", connects.Load())
	}
}

// Two devices with one identity end each other's sessions. Each device logs that and
// waits, and no version on trial fails because of it.
func TestOneIdentityOnTwoDevices(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int{"the manager's own code": wire.CloseReplaced, "another code": websocket.CloseNormalClosure} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sessions atomic.Int64
			url := manager(t, func(p peer) {
				p.welcome()
				p.until("health", func(m wire.Message) bool { _, ok := m.(*wire.Health); return ok })
				sessions.Add(1)
				p.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
				p.drain()
			})
			log := &lines{}
			c := rootWith(t, url)
			c.Log = logTo(log, slog.LevelDebug)
			a := runAgent(t, c)
			wait(t, "the agent logs it", func() bool {
				return strings.Contains(log.String(), "another device probably uses this node's credentials.json")
			})
			if n := sessions.Load(); n > sharedSessions {
				t.Errorf("after %d sessions", n)
			}
			wait(t, "the trial is extended", func() bool {
				a.mu.Lock()
				defer a.mu.Unlock()
				return a.managerFaultUntil.After(time.Now().Add(sharedPause / 4))
			})
		})
	}
}

// The error for a server that is no manager names the likely cause, in a bounded text.
func TestServersThatAreNoManager(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		body   string
		want   string
	}{
		{404, "", "there is no manager at this URL (the path is /ws/node"},
		{200, "<html>", "a captive portal or a wrong address"},
		{302, "", "a captive portal or a wrong address"},
		{403, "", "403 Forbidden"},
		{503, "", "503 Service Unavailable"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		}))
		err := reach(t, rootWith(t, "ws"+strings.TrimPrefix(s.URL, "http")).Config)
		s.Close()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d: %v, want %q", tt.status, err, tt.want)
		}
	}
	// A reason phrase without an end.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4<<10))
			io.WriteString(conn, "HTTP/1.1 503 "+strings.Repeat("<", 70<<10)+"\r\nContent-Length: 0\r\n\r\n")
			conn.Close()
		}
	}()
	if err := reach(t, rootWith(t, "ws://"+l.Addr().String()).Config); err == nil || len(err.Error()) > 300 {
		t.Errorf("a long reason phrase: %v", err)
	}
	if err := reach(t, rootWith(t, manager(t, func(p peer) {})).Config); err != nil {
		t.Errorf("a manager: %v", err)
	}
}

// reach returns nil if a probe reaches a manager, authenticated or not.
func reach(t *testing.T, c config.Config) error {
	t.Helper()
	r, err := Probe(t.Context(), c, ProbeOptions{hold: time.Millisecond})
	if err != nil || r.Skipped() {
		return err
	}
	return r.Err()
}

// After the handshake a session reads at a bounded rate, whatever the manager
// sends: large frames, empty fragments, or control frames.
func TestASessionReadsAtABoundedRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		theirs, ours := net.Pipe()
		b := &boundedConn{Conn: ours, rate: rate.NewLimiter(sessionRate, sessionBurst)}
		liftBound(&openable{b, b})
		go func() {
			defer theirs.Close()
			theirs.Write(make([]byte, sessionBurst+10*sessionRate))
		}()
		began := time.Now()
		n, err := io.Copy(io.Discard, b)
		if took := time.Since(began); err != nil || n != sessionBurst+10*sessionRate || took < 10*time.Second-100*time.Millisecond || took > 11*time.Second {
			t.Errorf("%d bytes in %v, %v", n, took, err)
		}
	})
}
