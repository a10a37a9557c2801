//go:build !sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// A probe reaches the stage at which its link fails, and reports why. It sends the
// credentials only where it may, and writes nothing.
func TestProbeStages(t *testing.T) {
	t.Parallel()
	short := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	for name, tt := range map[string]struct {
		manager func(t *testing.T) *secureManager // nil: one that accepts probes
		change  func(t *testing.T, m *secureManager, c *node, o *ProbeOptions)
		ctx     func(t *testing.T) context.Context
		stage   string // the last one
		skipped bool
		want    string // in its error; "": it is reached
		auths   int64
	}{
		"all is well": {stage: StageHeld, auths: 1},
		"no such name": {stage: StageResolve, want: "check the name in manager.urls",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				c.Manager.URLs = []string{"wss://nowhere.invalid"}
			}},
		"refused": {stage: StageTCP, want: "connection refused",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				c.Manager.URLs = []string{"wss://" + closedAddress(t)}
			}},
		"packets are dropped": {stage: StageTCP, ctx: short, want: "",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				c.Manager.URLs = []string{"wss://192.0.2.1"}
			}},
		"TLS stalls": {stage: StageTLS, ctx: short, want: "connect",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				c.Manager.URLs = []string{"wss://" + silent(t)}
			}},
		"another CA": {stage: StageTLS, want: "set manager.ca_file",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				ca, _ := authority(t, "other")
				if err := os.WriteFile(m.ca, ca, 0o600); err != nil {
					t.Fatal(err)
				}
			}},
		"another pin": {stage: StageTLS, want: "neither is pinned",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				c.Manager.KeyFingerprint = []string{strings.Repeat("0", 64)}
			}},
		"no ca_file": {stage: StageTLS, want: "no such file",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) { os.Remove(m.ca) }},
		"403": {stage: StageWebSocket, want: "403 Forbidden",
			manager: func(t *testing.T) *secureManager { return behindTLS(t, refusing(403)) }},
		"503": {stage: StageWebSocket, want: "503 Service Unavailable",
			manager: func(t *testing.T) *secureManager { return behindTLS(t, refusing(503)) }},
		"a captive portal": {stage: StageWebSocket, want: "a captive portal",
			manager: func(t *testing.T) *secureManager { return behindTLS(t, refusing(200)) }},
		"an older manager": {stage: StageAuth, skipped: true, want: "does not announce",
			manager: func(t *testing.T) *secureManager { return answering(t, nil, acceptProbe) }},
		"an echoed subprotocol": {stage: StageAuth, skipped: true, want: "does not announce",
			manager: func(t *testing.T) *secureManager {
				return answering(t, http.Header{"Sec-WebSocket-Protocol": {wire.FeatureProbe}}, acceptProbe)
			}},
		"silent after websocket": {stage: StageAuth, ctx: short, want: "no answer until the probe had to end", auths: 1,
			manager: func(t *testing.T) *secureManager { return answering(t, announced, peer.drain) }},
		"a session instead": {stage: StageAuth, want: "opened a session", auths: 1,
			manager: func(t *testing.T) *secureManager { return answering(t, announced, peer.welcome) }},
		"a registration instead": {stage: StageAuth, want: "register_ack", auths: 1,
			manager: func(t *testing.T) *secureManager {
				return answering(t, announced, func(p peer) { p.send(&wire.RegisterAck{NodeID: "x", NodeSecret: "y"}) })
			}},
		"wrong secret": {stage: StageAuth, want: `the manager refuses this node: "no"`, auths: 1,
			manager: func(t *testing.T) *secureManager {
				return answering(t, announced, func(p peer) { p.send(&wire.AuthError{Message: "no"}) })
			}},
		"closed after auth": {stage: StageHeld, want: "the connection ended", auths: 1,
			manager: func(t *testing.T) *secureManager {
				return answering(t, announced, func(p peer) { p.send(&wire.AuthOK{Probe: true}) })
			}},
		"closed with a reason": {stage: StageHeld, want: `1011 "bad day"`, auths: 1,
			manager: func(t *testing.T) *secureManager {
				return answering(t, announced, func(p peer) {
					p.send(&wire.AuthOK{Probe: true})
					p.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseInternalServerErr, "bad day"), time.Now().Add(time.Second))
					p.drain()
				})
			}},
		"no answer after auth": {stage: StageHeld, want: "no answer until the probe had to end", auths: 1,
			ctx: short,
			manager: func(t *testing.T) *secureManager {
				return answering(t, announced, func(p peer) { p.send(&wire.AuthOK{Probe: true}); <-t.Context().Done() })
			}},
		"pongs that nobody asked for": {stage: StageHeld, want: "the connection ended", auths: 1,
			manager: func(t *testing.T) *secureManager {
				return answering(t, announced, func(p peer) {
					p.send(&wire.AuthOK{Probe: true})
					p.WriteControl(websocket.PongMessage, []byte("x"), time.Now().Add(time.Second))
				})
			},
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) { o.hold = time.Minute }},
		"messages meanwhile": {stage: StageHeld, auths: 1,
			manager: func(t *testing.T) *secureManager {
				return answering(t, announced, func(p peer) {
					p.WriteMessage(websocket.TextMessage, []byte("nonsense"))
					p.send(&wire.Ping{})
					p.send(&wire.AuthOK{Probe: true})
					p.send(upgradeTo("c", "2.0.0"))
					p.send(&wire.Ping{})
					if _, ok := p.until("pong", func(wire.Message) bool { return true }).(*wire.Pong); !ok {
						t.Error("a ping is not answered")
					}
					p.drain()
				})
			}},
		"a key that is not allowed": {stage: StageAuth, skipped: true, want: "not one of those that are allowed",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				o.Keys = []string{strings.Repeat("0", 64)}
			}},
		"a key that is allowed": {stage: StageHeld, auths: 1,
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				o.Keys = []string{strings.Repeat("0", 64), strings.ToUpper(m.key[:2] + ":" + m.key[2:])}
			}},
		"not registered": {stage: StageAuth, skipped: true, want: "not registered",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				os.Remove(layoutOf(t, *c).CredentialsFile())
			}},
		"credentials are damaged": {stage: StageAuth, want: "is damaged",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				os.WriteFile(layoutOf(t, *c).CredentialsFile(), []byte("hunter2"), 0o600)
			}},
		"a copy of the credentials": {stage: StageHeld, auths: 1,
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				path := layoutOf(t, *c).CredentialsFile()
				o.Credentials = filepath.Join(t.TempDir(), "copy")
				if err := errors.Join(os.Rename(path, o.Credentials), os.WriteFile(path, []byte("hunter2"), 0o600)); err != nil {
					t.Fatal(err)
				}
			}},
		"no copy of the credentials": {stage: StageAuth, want: "does not exist",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				o.Credentials = filepath.Join(t.TempDir(), "copy")
			}},
		"the proxy is down": {stage: StageProxy, want: "connection refused",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				c.Manager.Proxy = config.NewSecret("http://" + closedAddress(t))
			}},
		"no such proxy": {stage: StageResolve, want: "lookup nowhere.invalid",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				c.Manager.Proxy = config.NewSecret("http://u:hunter2@nowhere.invalid:3128")
			}},
		"the proxy refuses": {stage: StageTCP, want: "Bad Gateway",
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				s := httptest.NewServer(refusing(http.StatusBadGateway))
				t.Cleanup(s.Close)
				c.Manager.Proxy = config.NewSecret(strings.Replace(s.URL, "http://", "http://u:hunter2@", 1))
			}},
		"through a proxy": {stage: StageHeld, auths: 1,
			change: func(t *testing.T, m *secureManager, c *node, o *ProbeOptions) {
				s := httptest.NewServer(http.HandlerFunc(tunnel))
				t.Cleanup(s.Close)
				c.Manager.Proxy = config.NewSecret(strings.Replace(s.URL, "http://", "http://u:hunter2@", 1))
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.manager == nil {
				tt.manager = func(t *testing.T) *secureManager { return answering(t, announced, acceptProbe) }
			}
			m := tt.manager(t)
			c := registeredNode(t, m)
			var told ProbeReport
			o := ProbeOptions{Version: "1.0.0", hold: 50 * time.Millisecond, Report: func(s ProbeStep) { told = append(told, s) }}
			if tt.change != nil {
				tt.change(t, m, &c, &o)
			}
			ctx := t.Context()
			if tt.ctx != nil {
				ctx = tt.ctx(t)
			}
			before := contents(t, c.Service.InstallRoot)
			r, err := Probe(ctx, c.Config, o)
			if err != nil {
				t.Fatal(err)
			}
			if after := contents(t, c.Service.InstallRoot); after != before {
				t.Errorf("the root changed:\n%s\n%s", before, after)
			}
			if fmt.Sprint(told) != fmt.Sprint(r) {
				t.Errorf("reported %+v, returned %+v", told, r)
			}
			for i, s := range r[:len(r)-1] {
				if !s.OK || s.Error != "" || i > 0 && stageBefore(s.Stage, r[i-1].Stage) {
					t.Errorf("step %d: %+v", i, s)
				}
			}
			last, ok := r[len(r)-1], tt.stage == StageHeld && tt.want == ""
			if last.Stage != tt.stage || last.OK != ok || last.Skipped != tt.skipped || !strings.Contains(last.Error, tt.want) || (last.Error == "") != ok {
				t.Errorf("ends with %+v", last)
			}
			if r.Held() != ok || r.Skipped() != tt.skipped || (r.Err() == nil) != ok {
				t.Errorf("held %v, skipped %v, %v", r.Held(), r.Skipped(), r.Err())
			}
			if ok && len(r) != len(stages) {
				t.Errorf("%d steps: %+v", len(r), r)
			}
			if strings.Contains(fmt.Sprint(r), "hunter2") {
				t.Errorf("the report has a secret: %+v", r)
			}
			if n := m.auths.Load(); n != tt.auths {
				t.Errorf("%d auths were sent", n)
			}
			if known := strings.Contains(strings.Join([]string{StageWebSocket, StageAuth, StageHeld}, " "), last.Stage) || strings.HasPrefix(name, "another"); known != (last.Key == m.key) {
				t.Errorf("key %q of %q", last.Key, m.key)
			}
		})
	}
}

func stageBefore(a, b string) bool {
	return strings.Index(strings.Join(stages, " "), a) < strings.Index(strings.Join(stages, " "), b)
}

// All URLs are probed at the same time, and one is enough.
func TestProbeOfSeveralManagers(t *testing.T) {
	t.Parallel()
	m := answering(t, announced, acceptProbe)
	c := registeredNode(t, m)
	other := answering(t, announced, func(p peer) { p.send(&wire.AuthError{Message: "no\x1b[2J" + strings.Repeat("x", 5000)}) })
	pem, err := os.ReadFile(other.ca)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(m.ca, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(pem); err != nil {
		t.Fatal(err)
	}
	f.Close()
	c.Manager.URLs = []string{"wss://" + silent(t), other.url, m.url}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	r, err := Probe(ctx, c.Config, ProbeOptions{hold: time.Millisecond})
	if err != nil || !r.Held() || r.Err() != nil {
		t.Errorf("%+v, %v", r, err)
	}
	ends := map[string]string{}
	for _, s := range r {
		if ends[s.URL] = s.Stage; len(s.Error) > 1000 || strings.Contains(s.Error, "\x1b") {
			t.Errorf("%q", s.Error)
		}
	}
	if len(ends) != 3 || ends[m.url+wire.Path] != StageHeld || ends[other.url+wire.Path] != StageAuth {
		t.Errorf("%v", ends)
	}
}

func TestProbeRefuses(t *testing.T) {
	t.Parallel()
	c := bareNode(t)
	if _, err := Probe(t.Context(), c.Config, ProbeOptions{Keys: []string{"abc"}}); err == nil || !strings.Contains(err.Error(), `the key "abc" is not a SHA-256`) {
		t.Error(err)
	}
	c.Service.DeviceType = ""
	if _, err := Probe(t.Context(), c.Config, ProbeOptions{}); err == nil || !strings.Contains(err.Error(), "device_type") {
		t.Error(err)
	}
	if (ProbeReport)(nil).Err() == nil || (ProbeReport)(nil).Held() || (ProbeReport)(nil).Skipped() {
		t.Error("no steps are a success")
	}
}
