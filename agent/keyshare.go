package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	neturl "net/url"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/gorilla/websocket"
)

// unansweredError is the error of a TLS handshake that the server did not answer. Some
// middleboxes swallow the first message of a client if it is longer than a packet: then one
// without the post-quantum key share is answered.
type unansweredError struct{ error }

func (e unansweredError) Unwrap() error { return e.error }

// openWebSocket is d.DialContext.
func openWebSocket(ctx context.Context, d *websocket.Dialer, url string) (*websocket.Conn, *http.Response, error) {
	if u, err := neturl.Parse(url); err == nil && d.TLSClientConfig != nil {
		d.TLSClientConfig.ServerName = u.Hostname()
	}
	watched, unanswered := cert.Watch(ctx)
	conn, resp, err := d.DialContext(watched, url, nil)
	var proxy *proxyError
	if err != nil && ctx.Err() == nil && (unanswered() || errors.As(err, &proxy) && cert.Unanswered(proxy.err)) {
		err = unansweredError{err}
	}
	return conn, resp, err
}

// isUnanswered reports whether err is that of a TLS handshake without an answer.
func isUnanswered(err error) bool { return errors.As(err, new(unansweredError)) }

// keyShare is what the agent offers to a manager.
type keyShare struct {
	classical bool      // without the post-quantum key share
	since     time.Time // of classical
	logged    bool      // that the manager answers that
}

// offer makes d offer what the manager at url answers, as far as that is known. The full offer
// is made again after cert.ClassicalFor: an outage, too, answers none.
func (a *Agent) offer(url string, d *websocket.Dialer) {
	k := a.keyShares[url]
	if k.classical && time.Since(k.since) >= cert.ClassicalFor {
		k.classical = false
		a.keyShares[url] = k
	}
	if k.classical {
		d.TLSClientConfig.CurvePreferences = cert.Classical()
	}
}

// noteOffer remembers whether the manager at url answered. Without an answer the next attempt
// makes the other offer.
func (a *Agent) noteOffer(url string, err error) {
	k := a.keyShares[url]
	switch {
	case isUnanswered(err):
		k.classical, k.since = !k.classical, time.Now()
	case err == nil && k.classical && !k.logged:
		k.logged = true
		a.log.Warn("the manager answered a TLS handshake only without the post-quantum key share; something between may swallow longer ones", "manager", url)
	}
	a.keyShares[url] = k
}

// clock returns the clock by which certificates are judged.
func (c settings) clock() cert.Clock { return stage.Clock(c.Layout, nil) }

// explainClock adds to the error of a connection what this device's clock has to do with it.
func (c settings) explainClock(err error) error {
	if why := c.clock().Explain(err); why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}
