package line_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/line"
)

// dial sends a line of text through l, and returns the answer.
func dial(l *line.Line) (string, error) {
	c, err := net.DialTimeout("tcp", l.Addr(), time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

// echo is a server that answers each byte with itself.
func echo(t *testing.T) string {
	t.Helper()
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	return s.Addr().String()
}

func newLine(t *testing.T, to string) *line.Line {
	t.Helper()
	l, err := line.New(to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// Each fault is seen as what it is, and the line is sound again afterwards.
func TestFaults(t *testing.T) {
	t.Parallel()
	timeout := func(err error) bool {
		ne, ok := errors.AsType[net.Error](err)
		return ok && ne.Timeout()
	}
	for _, tt := range []struct {
		name  string
		fault line.Fault
		is    func(error) bool
	}{
		{"refused", line.Refused, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
		{"dropped", line.Dropped, func(err error) bool {
			return timeout(err) && strings.Contains(err.Error(), "dial")
		}},
		{"stalls", line.Stalls, func(err error) bool { return timeout(err) && strings.Contains(err.Error(), "read") }},
		{"resets", line.Resets, func(err error) bool {
			return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
		}},
		{"the first", line.Conn(func(l *line.Line, c net.Conn, n int) {
			if n == 1 {
				line.Resets.Serve(l, c, n)
			} else {
				l.Forward(c)
			}
		}), func(err error) bool { return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, echo(t))
			for range 2 {
				if got, err := dial(l); err != nil || got != "hello\n" {
					t.Fatalf("a sound line: %q, %v", got, err)
				}
				if err := l.Set(tt.fault); err != nil {
					t.Fatal(err)
				}
				if _, err := dial(l); err == nil || !tt.is(err) {
					t.Errorf("got %v", err)
				}
				if err := l.Set(line.Sound); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Set ends what is open, and ResetsAfter each connection after its time.
func TestConnectionsEnd(t *testing.T) {
	t.Parallel()
	l := newLine(t, echo(t))
	open := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(5 * time.Second))
		return c
	}
	c := open()
	answers := func() error {
		io.WriteString(c, "x")
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	if err := cmp.Or(answers(), l.SetLater(line.Refused), answers()); err != nil {
		t.Fatalf("an open connection: %v", err)
	}
	if _, err := dial(l); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a later connection: %v", err)
	}
	if err := l.Set(line.ResetsAfter(func() time.Duration { return 50 * time.Millisecond })); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{c, open()} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v", err)
		}
	}
}

// Behind an intruder or a portal the node sees their certificate, and what they answer.
func TestAnswers(t *testing.T) {
	t.Parallel()
	manager := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "in 2026") }))
	t.Cleanup(manager.Close)
	portal := httptest.NewUnstartedServer(nil)
	portal.StartTLS()
	t.Cleanup(portal.Close)
	cert := portal.TLS.Certificates[0]
	l := newLine(t, manager.Listener.Addr().String())
	get := func() (int, string) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		resp, err := client.Get("https://" + l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b) + resp.Header.Get("Retry-After")
	}
	for _, tt := range []struct {
		fault line.Fault
		code  int
		says  string
	}{
		{line.Sound, 200, "in 2026"},
		{line.Status(cert, 503, "Retry-After", "600"), 503, "<html>503</html>600"},
		{line.Terminates(cert, line.Replace("2026", "2027")), 200, "in 2027"},
	} {
		if err := l.Set(tt.fault); err != nil {
			t.Fatal(err)
		}
		if code, says := get(); code != tt.code || says != tt.says {
			t.Errorf("got %d %q, want %d %q", code, says, tt.code, tt.says)
		}
	}
}

func TestResolver(t *testing.T) {
	t.Parallel()
	box.NeedRoot(t) // for its port
	r, err := line.NewResolver(net.IPv4(127, 77, 3, 1), net.IPv4(127, 1, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	res := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", r.Addr.String()+":53")
	}}
	look := func() ([]string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		return res.LookupHost(ctx, "manager.test")
	}
	for how, want := range map[line.Lookup]func([]string, error) bool{
		line.Found: func(addrs []string, err error) bool { return err == nil && len(addrs) == 1 && addrs[0] == "127.1.2.3" },
		line.NXDomain: func(_ []string, err error) bool {
			dns, ok := errors.AsType[*net.DNSError](err)
			return ok && dns.IsNotFound
		},
		line.Silent: func(_ []string, err error) bool {
			dns, ok := errors.AsType[*net.DNSError](err)
			return ok && dns.IsTimeout
		},
	} {
		r.Set(func(bool) line.Lookup { return how })
		if addrs, err := look(); !want(addrs, err) {
			t.Errorf("%v: %v, %v", how, addrs, err)
		}
	}
}
