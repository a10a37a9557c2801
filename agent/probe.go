package agent

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/release"
)

// Stages of a probe, in their order.
const (
	StageResolve   = "resolve"   // the name of the manager, or of the proxy, has an address
	StageProxy     = "proxy"     // the proxy is connected; without one it is passed at once
	StageTCP       = "tcp"       // the manager is connected, through the proxy if there is one
	StageTLS       = "tls"       // its certificate is accepted
	StageWebSocket = "websocket" // it opened the WebSocket
	StageAuth      = "auth"      // it accepted the credentials
	StageHeld      = "held"      // it kept the connection for 10 s
)

var stages = []string{StageResolve, StageProxy, StageTCP, StageTLS, StageWebSocket, StageAuth, StageHeld}

// ProbeOptions say how a probe authenticates, and who hears of it.
type ProbeOptions struct {
	// Version is the program's version, which the manager may log.
	Version string
	// Credentials is a file in place of the node's credentials.json, such as a copy.
	Credentials string
	// Keys are fingerprints, as manager.key_fingerprint has them. If there are any, the
	// probe authenticates only to a manager with one of these keys. Which certificates are
	// accepted is up to the configuration alone.
	Keys []string
	// Report is called for each step when it ends, by one goroutine at a time.
	Report func(ProbeStep)

	hold time.Duration // 0: as a node; tests set it
}

// ProbeStep is the end of one stage at one URL. `probe --json` prints it, so its fields
// keep their names. Its texts are bounded, and safe to print.
type ProbeStep struct {
	URL   string `json:"url"`
	Stage string `json:"stage"`
	OK    bool   `json:"ok"`
	// Skipped is true of a StageAuth that the probe did not try, for the reason in Error.
	Skipped bool   `json:"skipped,omitzero"`
	Millis  int64  `json:"ms"`              // since the stage before
	Detail  string `json:"detail,omitzero"` // what was reached
	Key     string `json:"key,omitzero"`    // fingerprint of the peer's key, from StageTLS on
	Error   string `json:"error,omitzero"`  // why the stage failed
}

// ProbeReport is the steps of a probe, in the order in which they ended.
type ProbeReport []ProbeStep

// Held reports whether the probe succeeded at one URL at least.
func (r ProbeReport) Held() bool {
	return slices.ContainsFunc(r, func(s ProbeStep) bool { return s.Stage == StageHeld && s.OK })
}

// Skipped reports whether a manager answered to which the probe did not authenticate, and
// none at which it succeeded.
func (r ProbeReport) Skipped() bool {
	return !r.Held() && slices.ContainsFunc(r, func(s ProbeStep) bool { return s.Skipped })
}

// Err returns nil if the probe succeeded at one URL at least, and otherwise what is wrong
// with each.
func (r ProbeReport) Err() error {
	if r.Held() {
		return nil
	}
	var errs []error
	for _, s := range r {
		if !s.OK {
			errs = append(errs, fmt.Errorf("%s: %s", s.URL, s.Error))
		}
	}
	return cmp.Or(errors.Join(errs...), errors.New(NoManager+": there is nothing to probe"))
}

// Probe tests the link to each manager of c, at the same time and by the rules of a
// session, and closes the connections. It opens no session, writes nothing, works beside
// a running agent, and ends within four minutes. The error is one of the configuration or of
// the options; the report has the results.
//
// It sends the node's credentials only to a manager that announces, on the same
// connection, that it knows probes. Another one would open a session in place of the
// agent's own.
func Probe(ctx context.Context, c config.Config, o ProbeOptions) (ProbeReport, error) {
	checked, err := c.Resolve()
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	p := &prober{c: settings{Settings: checked}, o: o}
	if p.keys, err = fingerprints(o.Keys); err != nil {
		return nil, err
	}
	p.o.hold = cmp.Or(o.hold, pace(heldFor))
	p.cred, p.credErr = readCredentials(cmp.Or(o.Credentials, checked.Layout.CredentialsFile()))
	if o.Credentials != "" && p.credErr == nil && p.cred.NodeID == "" {
		p.credErr = fmt.Errorf("credentials: %s does not exist", o.Credentials)
	}
	ctx, cancel := context.WithTimeout(ctx, limit(probeOverhead)+p.o.hold)
	defer cancel()
	var all sync.WaitGroup
	for _, url := range checked.URLs {
		all.Go(func() { p.probe(ctx, url) })
	}
	all.Wait()
	return p.report, nil
}

// heldFor is how long an authenticated connection must last to prove a link.
const heldFor = 10 * time.Second

// probeOverhead bounds a probe without the time for which its connection is held. Most probes
// end long before: without a byte each stage ends by itself.
const probeOverhead = dialTimeout + silentTimeout + pongTime

// prober is one call of Probe.
type prober struct {
	c       settings
	o       ProbeOptions
	keys    []string
	cred    credentials
	credErr error // why there are none

	mu     sync.Mutex
	report ProbeReport
}

// add reports a step.
func (p *prober) add(s ProbeStep) {
	s.URL = release.Foreign(s.URL, maxStepText)
	s.Detail, s.Error = release.Foreign(s.Detail, maxStepText), release.Foreign(s.Error, 2*maxStepText)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report = append(p.report, s)
	if p.o.Report != nil {
		p.o.Report(s)
	}
}

// maxStepText bounds each text of a step, in bytes.
const maxStepText = 500

// CheckKeys returns an error if one of the keys is no fingerprint, so that Probe would fail.
func CheckKeys(keys []string) error {
	_, err := fingerprints(keys)
	return err
}

// fingerprints returns keys in the form of state.Manager.Key.
func fingerprints(keys []string) ([]string, error) {
	out := make([]string, 0, len(keys))
	for _, k := range keys {
		b, err := hex.DecodeString(strings.ReplaceAll(k, ":", ""))
		if err != nil || len(b) != 32 {
			return nil, fmt.Errorf("the key %.80q is not a SHA-256 in hex (64 digits, colons allowed)", k)
		}
		out = append(out, hex.EncodeToString(b))
	}
	return out, nil
}
