package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/gorilla/websocket"
)

// probe tests the link to one manager.
func (p *prober) probe(ctx context.Context, url string) {
	s := &probeSteps{p: p, url: url, since: time.Now()}
	d, err := p.c.dialer()
	if err != nil { // ca_file
		s.fail(StageTLS, err)
		return
	}
	s.watch(d)
	traced := httptrace.WithClientTrace(ctx, s.trace())
	conn, err := dial(traced, d, url)
	if isUnanswered(err) { // as in the next session
		d.TLSClientConfig.CurvePreferences = cert.Classical()
		conn, err = dial(traced, d, url)
	}
	if err != nil {
		s.fail("", p.c.explainClock(err))
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	announces := "the manager announces probes"
	if !conn.probes {
		announces = "the manager does not announce probes"
	}
	s.reach(StageWebSocket, announces)
	if why := p.skip(conn); why != "" {
		s.skip(why)
		return
	}
	if err := p.authenticate(conn.Conn); err != nil {
		s.fail("", causeOf(ctx, err))
		return
	}
	s.reach(StageAuth, "accepted; no session was opened")
	if err := p.held(conn.Conn); err != nil {
		s.fail("", causeOf(ctx, err))
		return
	}
	s.reach(StageHeld, "the manager kept the connection")
}

// causeOf names the end of the whole probe, if that ended a step.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer until the probe had to end: %w", ctx.Err())
	}
	return err
}

// skip returns why the probe must not authenticate, or "".
func (p *prober) skip(conn link) string {
	key := conn.key()
	switch {
	case !conn.probes:
		return "not authenticated: the manager does not announce that it knows probes, and could end the session of the running agent; its version is older, or something between removes the header"
	case len(p.keys) > 0 && key == "":
		return "not authenticated: without TLS the manager has no key, and only some keys are allowed"
	case len(p.keys) > 0 && !slices.Contains(p.keys, key):
		return "not authenticated: the manager's key is not one of those that are allowed"
	case p.credErr == nil && p.cred.NodeID == "":
		return "not authenticated: this node is not registered yet"
	}
	return ""
}

// probeSteps finds out how far one connection has come. Its callbacks run on goroutines
// of the dialer.
type probeSteps struct {
	p   *prober
	url string
	key string // of the peer, once it is known

	mu    sync.Mutex
	since time.Time // end of the last step
	next  int       // of stages: the first that is not reached
	ended bool      // a step failed
	name  string    // that is resolved
	proxy string    // its host; "" without one
}

// watch makes d report which proxy it uses, and when that is connected.
func (s *probeSteps) watch(d *websocket.Dialer) {
	proxy, connect := d.Proxy, d.NetDialContext
	d.Proxy = func(r *http.Request) (*url.URL, error) {
		u, err := proxy(r)
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case err != nil:
			s.next = slices.Index(stages, StageProxy)
		case u != nil:
			s.proxy = u.Host
		}
		return u, err
	}
	d.NetDialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := connect(ctx, network, addr)
		if err == nil {
			s.reach(StageProxy, "")
		}
		return conn, err
	}
}

func (s *probeSteps) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart: func(i httptrace.DNSStartInfo) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.name = i.Host
		},
		DNSDone: func(i httptrace.DNSDoneInfo) {
			if i.Err != nil {
				return
			}
			var addrs []string
			for _, a := range i.Addrs[:min(len(i.Addrs), 8)] {
				addrs = append(addrs, a.String())
			}
			s.mu.Lock()
			name := s.name
			s.mu.Unlock()
			s.reach(StageResolve, name+": "+strings.Join(addrs, ", "))
		},
		ConnectStart: func(_, addr string) { s.reach(StageResolve, addr) },
		GotConn: func(i httptrace.GotConnInfo) {
			s.reach(StageTCP, i.Conn.RemoteAddr().String())
			if !strings.HasPrefix(s.url, "wss:") {
				s.reach(StageTLS, "none: ws:// is not encrypted")
			}
		},
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			certs := state.PeerCertificates
			if refused, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
				certs = refused.UnverifiedCertificates
			}
			s.setKey(certs)
			if err == nil {
				s.reach(StageTLS, tls.VersionName(state.Version))
			}
		},
	}
}

func (s *probeSteps) setKey(certs []*x509.Certificate) {
	if len(certs) > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.key = fingerprint(certs[0])
	}
}

// reach reports that a stage is reached, and those before it that were not reported. A
// stage that was reported is left out.
func (s *probeSteps) reach(stage, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := slices.Index(stages, stage)
	if stage == StageResolve && s.proxy == "" {
		last = slices.Index(stages, StageProxy)
	}
	for ; s.next <= last && !s.ended; s.next++ {
		switch at := stages[s.next]; {
		case at == StageProxy && s.proxy == "":
			s.add(ProbeStep{OK: true, Detail: "none"})
		case at == StageProxy:
			s.add(ProbeStep{OK: true, Detail: s.proxy})
		case at == StageTCP && s.proxy != "":
			s.add(ProbeStep{OK: true, Detail: "through the proxy"})
		case at == stage:
			s.add(ProbeStep{OK: true, Detail: detail})
		default:
			s.add(ProbeStep{OK: true})
		}
	}
}

// fail reports that a stage failed; "": the first that was not reached. It is the last
// report.
func (s *probeSteps) fail(stage string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(stages, stage); i > s.next {
		s.next = i
	}
	if s.proxy != "" && s.next < len(stages) && slices.Contains([]string{StageProxy, StageTCP}, stages[s.next]) {
		err = fmt.Errorf("proxy %s: %w", s.proxy, err)
	}
	s.add(ProbeStep{Error: err.Error()})
	s.ended = true
}

// skip reports that the probe does not authenticate, and why.
func (s *probeSteps) skip(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(ProbeStep{Skipped: true, Error: why})
	s.ended = true
}

// add reports a step of the stage next. mu is held.
func (s *probeSteps) add(step ProbeStep) {
	now := time.Now()
	step.URL, step.Stage, step.Millis = s.url, stages[s.next], now.Sub(s.since).Milliseconds()
	if s.next >= slices.Index(stages, StageTLS) {
		step.Key = s.key
	}
	s.since = now
	s.p.add(step)
}
