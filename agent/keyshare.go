package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	neturl "net/url"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/gorilla/websocket"
)

// openWebSocket is d.DialContext. Where a TLS handshake is not answered it tries once without the
// post-quantum key share: some middleboxes swallow a longer first message. The settings of d
// show afterwards which of the two succeeded.
func openWebSocket(ctx context.Context, d *websocket.Dialer, url string) (*websocket.Conn, *http.Response, error) {
	conf := d.TLSClientConfig
	if conf == nil {
		return d.DialContext(ctx, url, nil)
	}
	if u, err := neturl.Parse(url); err == nil {
		conf.ServerName = u.Hostname()
	}
	watched, unanswered := cert.Watch(ctx)
	conn, resp, err := d.DialContext(watched, url, nil)
	var proxy *proxyError
	if err == nil || ctx.Err() != nil || !unanswered() && !(errors.As(err, &proxy) && cert.Unanswered(proxy.err)) {
		return conn, resp, err
	}
	before := conf.CurvePreferences
	if conf.CurvePreferences = nil; before == nil { // otherwise the network may have changed
		conf.CurvePreferences = cert.Classical()
	}
	if conn, resp, again := d.DialContext(ctx, url, nil); again == nil || resp != nil {
		return conn, resp, again
	}
	conf.CurvePreferences = before
	return nil, nil, err
}

// explainClock adds to the error of a connection what this device's clock has to do with it.
func (c settings) explainClock(err error) error {
	if why := stage.Clock(c.Layout, nil).Explain(err); why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}

// noteKeyShare remembers with which offer the manager at url answers, and logs a change.
func (a *Agent) noteKeyShare(url string, d *websocket.Dialer) {
	classical := d.TLSClientConfig.CurvePreferences != nil
	if classical && !a.classical[url] {
		a.log.Warn().Str("manager", url).Msg("the manager answered a TLS handshake only without the post-quantum key share; something between may swallow longer ones")
	}
	a.classical[url] = classical
}
