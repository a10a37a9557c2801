package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// reconnect are the pauses before the next try, each with full jitter: a
// manager that restarts must not get its whole fleet back in one second.
var reconnect = []time.Duration{1 * time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second}

const (
	steady        = 60 * time.Second // a session this long starts the pauses anew
	maxRetryAfter = time.Hour        // of what a manager may ask for
	dialTimeout   = 15 * time.Second
	writeTimeout  = 10 * time.Second
	// handlerTimeout also bounds the checks and writes of one turn of the loop.
	handlerTimeout = 20 * time.Second
)

// connect holds a session with the manager until ctx is done, trying each URL
// in turn.
func (a *Agent) connect(ctx context.Context) error {
	dialer, err := a.c.dialer()
	if err != nil {
		return err
	}
	fails := 0
	lost := time.Now()
	for i := 0; ; i++ {
		url := a.c.urls[i%len(a.c.urls)]
		began := time.Now()
		a.stir(dialTimeout + writeTimeout + wire.AuthTimeout)
		err := a.session(ctx, dialer, url)
		if a.setAuthenticated(false) {
			lost = time.Now()
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) >= steady {
			fails = 0
		}
		pause := time.Duration(rand.Int64N(int64(reconnect[min(fails, len(reconnect)-1)])))
		fails++
		var busy *busyError
		if errors.As(err, &busy) {
			a.excuse(busy)
			pause = max(pause, busy.retryAfter)
		}
		a.say(func(w *words) { w.manager = Connection{URL: url, Since: lost, Problem: err.Error()}.String() })
		a.stir(pause)
		a.log.Warn().Err(err).Str("manager", url).Dur("retry_in", pause).Msg("not connected to the manager")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// busyError is a manager that says that it, not the node, has a problem.
type busyError struct {
	why        string
	retryAfter time.Duration
}

func (e *busyError) Error() string { return e.why }

func (a *Agent) excuse(e *busyError) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault, a.faultAt = e.why, time.Now()
}

// setAuthenticated returns what it was before.
func (a *Agent) setAuthenticated(v bool) (before bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, a.authenticated = a.authenticated, v
	return before
}

func (r resolved) dialer() (*websocket.Dialer, error) {
	m := r.Manager
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Time: certificateTime}
	if m.CAFile != "" {
		pem, err := os.ReadFile(m.CAFile)
		if err != nil {
			return nil, fmt.Errorf("config: manager.ca_file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("config: manager.ca_file %s holds no certificate", m.CAFile)
		}
	}
	switch {
	case r.pin != nil:
		conf.InsecureSkipVerify = true // the pin is what is checked instead
		conf.VerifyConnection = func(cs tls.ConnectionState) error {
			if sum := sha256.Sum256(cs.PeerCertificates[0].Raw); !bytes.Equal(sum[:], r.pin) {
				return fmt.Errorf("the manager's certificate has the fingerprint %x, not the one of cert_fingerprint", sum)
			}
			return nil
		}
	case m.AcceptSelfSignedCert:
		r.Log.Warn().Msg("accept_self_signed_cert is on: anybody on the path can pose as the manager; prefer cert_fingerprint")
		conf.InsecureSkipVerify = true
	}
	return &websocket.Dialer{
		Proxy: r.proxy, TLSClientConfig: conf, HandshakeTimeout: dialTimeout,
		ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10,
	}, nil
}

// written is before any release of this code. A clock that says less has not
// been set yet, as that of a device that boots in 1970.
var written = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// certificateTime is what certificates of the manager and of the release host
// are judged by. It decides nothing else: releases are verified without a clock.
func certificateTime() time.Time {
	if now := time.Now(); now.After(written) {
		return now
	}
	return written
}

// dial opens the WebSocket; a refusal that is the manager's fault is a busyError.
func dial(ctx context.Context, d *websocket.Dialer, url string) (*websocket.Conn, error) {
	conn, resp, err := d.DialContext(ctx, url, nil)
	if err == nil {
		conn.SetReadLimit(wire.MaxMessage)
		return conn, nil
	}
	if resp == nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	resp.Body.Close()
	why := fmt.Sprintf("the manager answers %s", resp.Status)
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
		return nil, &busyError{why, retryAfter(resp.Header.Get("Retry-After"))}
	}
	return nil, errors.New(why)
}

func retryAfter(v string) time.Duration {
	if secs, err := strconv.Atoi(v); err == nil && secs > 0 {
		return min(time.Duration(min(secs, 1<<20))*time.Second, maxRetryAfter)
	}
	return 0
}
