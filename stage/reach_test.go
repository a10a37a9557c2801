package stage

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/release"
)

// A host cannot be reached if nothing answers, at whatever step. Everything that answers uses
// up the time of the patience, and a fault of this machine is not the network's.
func TestWhatCannotBeReached(t *testing.T) {
	t.Parallel()
	fails := func(err error) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) { return nil, err }
	}
	call := func(name string, errno syscall.Errno) func(context.Context, string, string) (net.Conn, error) {
		return fails(&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError(name, errno)})
	}
	// serves answers a connection with f.
	serves := func(f func(net.Conn)) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			go func() { f(b); b.Close() }()
			return a, nil
		}
	}
	hello := func(c net.Conn) { c.Read(make([]byte, 16<<10)) }
	for name, tt := range map[string]struct {
		dial  func(context.Context, string, string) (net.Conn, error)
		proxy int // the status of a proxy; 0: none
		away  bool
		code  release.Code // in the end; "": the network's
		text  string
		final bool // at the first try
	}{
		"no route":              {dial: call("connect", syscall.EHOSTUNREACH), away: true},
		"no network":            {dial: call("connect", syscall.ENETUNREACH), away: true},
		"refused":               {dial: call("connect", syscall.ECONNREFUSED), away: true},
		"no answer":             {dial: call("connect", syscall.ETIMEDOUT), away: true},
		"no such name":          {dial: fails(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}}), away: true},
		"no name server":        {dial: fails(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", Name: "h", IsTemporary: true}}), away: true},
		"ends in the handshake": {dial: serves(hello), away: true},
		"reset in the handshake": {dial: serves(func(c net.Conn) {
			hello(c)
			c.Write([]byte{22, 3, 3, 0, 100, 2})
		}), away: true},
		"hangs in the handshake": {dial: serves(func(c net.Conn) { io.Copy(io.Discard, c) }), away: true},
		"no TLS": {dial: serves(func(c net.Conn) {
			hello(c)
			io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n")
		}), text: "HTTP response to HTTPS client"},
		"not even HTTP":          {dial: serves(func(c net.Conn) { hello(c); io.WriteString(c, "220 smtp.example ESMTP\r\n") })},
		"a TLS alert":            {dial: serves(func(c net.Conn) { hello(c); c.Write([]byte{21, 3, 3, 0, 2, 2, 70}) }), text: "protocol version"},
		"a bad proxy":            {proxy: 502, away: true},
		"a proxy without a line": {proxy: 503, away: true},
		"a slow proxy":           {proxy: 504, away: true},
		"a proxy that asks who":  {proxy: 407, text: "the proxy answers 407"},
		"a proxy that forbids":   {proxy: 403},
		"too many files":         {dial: call("socket", syscall.EMFILE), code: release.Internal, text: "this machine makes no connection"},
		"too many files of all":  {dial: call("socket", syscall.ENFILE), code: release.Internal},
		"a firewall":             {dial: call("connect", syscall.EPERM), code: release.Internal, text: "look at its firewall"},
		"a profile":              {dial: call("connect", syscall.EACCES), code: release.Internal, text: "mandatory access control"},
		"no such family":         {dial: call("socket", syscall.EAFNOSUPPORT), code: release.Internal, text: "RestrictAddressFamilies="},
		"no port is left":        {dial: call("connect", syscall.EADDRNOTAVAIL), code: release.Internal, text: "this machine makes no connection"},
		"no socket by a filter":  {dial: call("socket", syscall.EPERM), code: release.Internal, text: "SystemCallFilter=", final: true},
		"no socket by a profile": {dial: call("socket", syscall.EACCES), code: release.Internal, text: "lets the agent open no socket", final: true},
		"no memory":              {dial: call("socket", syscall.ENOMEM), code: release.Internal},
		"a private address":      {dial: fails(&net.OpError{Op: "dial", Err: refusePrivate("", "10.0.0.1:443", nil)}), code: release.URLInvalid, text: "private address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, nil)
			s.Tries = 2
			tr := s.client.Transport.(*transport).base
			tr.TLSHandshakeTimeout = 50 * time.Millisecond
			if tt.dial != nil {
				tr.DialContext = tt.dial
			}
			if tt.proxy != 0 {
				p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(tt.proxy) }))
				t.Cleanup(p.Close)
				u, _ := url.Parse(p.URL)
				tr.Proxy = http.ProxyURL(u)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var told []Wait
			s.SetPatience(Patience{Limit: time.Nanosecond, Waiting: func(w Wait) {
				if told = append(told, w); len(told) == 20 {
					cancel() // it would wait for good
				}
			}})
			_, err := s.Fetch(ctx, s.Host(release.MustVersion("1.0.0")))
			if tt.code == "" {
				tt.code = release.NetworkError
			}
			switch {
			case tt.final:
				if len(told) > 0 || code(err) != tt.code || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("after %d tries: %v", len(told), err)
				}
			case told[0].Away != tt.away || !strings.Contains(told[0].Reason, tt.text):
				t.Errorf("%+v", told[0])
			case tt.away && !errors.Is(err, context.Canceled):
				t.Errorf("it gave up: %v", err)
			case !tt.away && (code(err) != tt.code || !strings.Contains(err.Error(), tt.text) || len(told) > 3):
				t.Errorf("after %d tries: %v", len(told), err)
			}
		})
	}
}

// Another certificate is an answer, too: a portal's, or one that has expired.
func TestAnotherCertificateIsAnAnswer(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	x := s.Config.Trust.(trust)
	x.CA = nil
	c := s.Config
	c.Trust = x
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.SetPatience(Patience{Limit: time.Nanosecond, Waiting: func(w Wait) {
		if w.Away {
			t.Errorf("%+v", w)
		}
	}})
	if _, err := s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0"))); code(err) != release.NetworkError {
		t.Errorf("got %v", err)
	}
}

// An outage answers no handshake either: after a day the post-quantum key share is offered again.
func TestTheKeyShareIsOfferedAgain(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	tr := s.client.Transport.(*transport)
	tr.classical, tr.since, tr.unanswered = true, time.Now().Add(-cert.ClassicalFor+time.Minute), 1
	if !tr.offer() {
		t.Error("the full offer, before a day has passed")
	}
	tr.since = tr.since.Add(-time.Minute)
	if tr.offer() || tr.unanswered != 0 {
		t.Error("no full offer after a day")
	}
}
