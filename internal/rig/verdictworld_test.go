package rig_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/internal/line"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/supervise"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// becomes is a swap that makes the line fail.
func becomes(f func(*world) line.Fault) func(*world) {
	return func(w *world) { w.set(f(w)) }
}

func always(f line.Fault) func(*world) { return becomes(func(*world) line.Fault { return f }) }

// answersStatus is a swap after which something in front of the manager answers each
// request with a status.
func answersStatus(status int, headers ...string) func(*world) {
	return becomes(func(w *world) line.Fault { return line.Status(w.cert, status, headers...) })
}

// sessions is a swap after which decide answers the first message of each session.
func sessions(decide func(w *world, auth *wire.Auth, conn *websocket.Conn) bool) func(*world) {
	return becomes(func(w *world) line.Fault {
		return line.Answers(w.cert, line.Sessions(w.line, func(auth *wire.Auth, conn *websocket.Conn) bool { return decide(w, auth, conn) }))
	})
}

// refuse answers a session with auth_error.
func refuse(conn *websocket.Conn, why string) {
	if b, err := wire.Encode(&wire.AuthError{Message: why}, time.Now()); err == nil {
		conn.WriteMessage(websocket.TextMessage, b)
	}
}

// authenticated waits until the new version has authenticated.
func authenticated(w *world) {
	w.t.Helper()
	w.wait(w.mark, "a session of 1.1.0", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.1.0" })
}

// worldFaults are the faults of the world. 1.1.0 is good in each.
func worldFaults() []verdict {
	rows := []verdict{
		{name: "sound"},
		{name: "manager dead for the whole trial", swap: func(w *world) { w.set(line.Refused); w.Manager.Close() }, meanwhile: unproven,
			heal: func(w *world) {
				if err := w.RestartManager(); err != nil {
					w.t.Error(err)
				}
				w.set(w.sound)
			}},
		{name: "manager killed in the middle of the hold", during: func(w *world) {
			authenticated(w)
			w.set(line.Refused)
			w.pass(7 * window / 2)
		}, meanwhile: unproven, heal: func(w *world) { w.set(w.sound) }},
		{name: "manager upgraded during the hold", during: func(w *world) {
			authenticated(w)
			w.set(line.Refused)
			if err := w.RestartManager(); err != nil {
				w.t.Error(err)
			}
		}, heal: func(w *world) { w.set(w.sound) }},
		{name: "manager dead after it completed", during: func(w *world) {
			w.event(w.mark, "upgrade_completed")
			w.set(line.Refused)
			w.until("kept", func() bool { return w.now() == kept })
		}, heal: func(w *world) { w.set(w.sound) }},
		{name: "connection refused", swap: always(line.Refused), meanwhile: unproven},
		{name: "SYN dropped", swap: always(line.Dropped), meanwhile: unproven},
		{name: "TLS stalls", swap: always(line.Stalls), meanwhile: unproven},
		{name: "reset at once", swap: always(line.Resets), meanwhile: unproven},
		{name: "reset every 5 s", swap: always(line.ResetsAfter(func() time.Duration { return scaled(5 * time.Second) })), meanwhile: unproven},
		{name: "20 % of connections cut at random", swap: always(line.ResetsAfter(func() time.Duration {
			if rand.IntN(5) > 0 {
				return 0
			}
			return rand.N(scaled(20 * time.Second))
		}))},
		{name: "line up for 30 s in every 5 minutes", swap: func(w *world) { w.set(line.UpSometimes(scaled(30*time.Second), scaled(5*time.Minute))) }},
		{name: "503 with Retry-After", swap: answersStatus(503, "Retry-After", "600"), meanwhile: unproven},
		{name: "503 once per start", swap: oncePerStart, during: func(w *world) { w.until("the first 503", func() bool { return w.line.Count() > 0 }) }},
		{name: "WebSocket accepted and then silent", swap: sessions(func(_ *world, _ *wire.Auth, conn *websocket.Conn) bool {
			line.Hold(conn)
			return false
		}), meanwhile: unproven},
		{name: "each session closed right after authentication", swap: func(w *world) { w.Manager.SetEnding(true) }, meanwhile: unproven,
			heal: func(w *world) { w.Manager.SetEnding(false) }},
		{name: "manager still believes in the old session", swap: believesInTheOldSession(), during: func(w *world) { w.pass(window) }},
		{name: "two URLs, the first hostile", config: twoURLs, swap: sessions(func(_ *world, auth *wire.Auth, conn *websocket.Conn) bool {
			if auth.Probe {
				return true
			}
			line.Hold(conn)
			return false
		}), heal: func(*world) {}},
		{name: "two URLs, the first silent after authentication", config: twoURLs, swap: sessions(func(w *world, auth *wire.Auth, conn *websocket.Conn) bool {
			if auth.Probe {
				return true
			}
			if b, err := wire.Encode(&wire.AuthOK{}, time.Now()); err != nil || conn.WriteMessage(websocket.TextMessage, b) != nil {
				w.t.Error(err)
			}
			io.Copy(io.Discard, conn.NetConn()) // no ping is answered
			return false
		}), heal: func(*world) {}},
		{name: "somebody in between whom only the old version accepts", config: laxTLS,
			swap: becomes(func(w *world) line.Fault {
				return line.Terminates(newAuthority(w.t).issue(w.t, yesterday, nextYear), nil)
			}), meanwhile: unproven},
		{name: "node deleted at the manager and restored", swap: deleted, meanwhile: unproven, heal: restored},
		{name: "manager's messages a year off", swap: becomes(func(w *world) line.Fault {
			year := time.Now().Year()
			return line.Terminates(w.cert, line.Replace(fmt.Sprintf(`"%d-`, year), fmt.Sprintf(`"%d-`, year+1)))
		}), heal: func(*world) {}},
		{name: "device's clock at 1970", config: clockAt1970},
		{name: "proxy down", config: throughAProxy, swap: always(line.Refused), meanwhile: unproven},
		{name: "a long first start", config: slowFirstStart, during: func(w *world) { w.pass(4 * window) }, heal: func(*world) {}},
	}
	for _, status := range []int{302, 401, 403, 404, 429, 500, 502, 503} {
		rows = append(rows, verdict{name: fmt.Sprint("HTTP ", status), swap: answersStatus(status, "Location", "https://127.0.0.1/login"), meanwhile: unproven})
	}
	rows = append(rows, verdict{name: "a captive portal's 200", swap: answersStatus(200), meanwhile: unproven})
	for name, c := range map[string]struct{ from, to time.Time }{
		"certificate expired":              {lastYear, yesterday},
		"manager's certificate a year off": {nextYear, nextYear.AddDate(1, 0, 0)},
	} {
		rows = append(rows, verdict{name: name, config: withCA, meanwhile: unproven,
			swap: becomes(func(w *world) line.Fault { return line.Terminates(w.ca.issue(w.t, c.from, c.to), nil) })})
	}
	rows = append(rows, verdict{name: "certificate of another CA", config: withCA, meanwhile: unproven,
		swap: becomes(func(w *world) line.Fault {
			return line.Terminates(newAuthority(w.t).issue(w.t, yesterday, nextYear), nil)
		})})
	for _, others := range []int{6, 100} {
		rows = append(rows, verdict{name: fmt.Sprintf("locked out because of %d other nodes behind the same address", others), swap: func(w *world) { spoiltNodes(w, others) }, heal: func(*world) {}})
	}
	for name, how := range map[string]func(v4 bool) line.Lookup{
		"NXDOMAIN":        func(bool) line.Lookup { return line.NXDomain },
		"resolver silent": func(bool) line.Lookup { return line.Silent },
		"resolver that answers one time in three": func(v4 bool) line.Lookup {
			if v4 && rand.IntN(3) > 0 {
				return line.Silent
			}
			return line.Found
		},
	} {
		row := verdict{name: name, config: withResolver, swap: func(w *world) { w.resolver.Set(how) }, meanwhile: unproven,
			heal: func(w *world) { w.resolver.Set(func(bool) line.Lookup { return line.Found }) }}
		if strings.Contains(name, "three") {
			row.meanwhile = ""
		}
		rows = append(rows, row)
	}
	for i := range rows {
		rows[i].end = kept
	}
	return rows
}

// oncePerStart lets the manager answer the first connection of each start with 503, and a
// Retry-After that is longer than the window.
func oncePerStart(w *world) {
	var answered atomic.Int32
	busy := line.Status(w.cert, 503, "Retry-After", "600")
	w.set(line.Conn(func(l *line.Line, c net.Conn, n int) {
		if start := w.starts.Load(); answered.Swap(start) != start {
			busy.Serve(l, c, n)
			return
		}
		l.Forward(c)
	}))
}

// believesInTheOldSession lets the manager refuse sessions, and no probes, for less than a
// window: until then the session of the old version seems to be alive.
func believesInTheOldSession() func(*world) {
	return func(w *world) {
		over := time.Now().Add(3 * window / 4)
		sessions(func(_ *world, auth *wire.Auth, conn *websocket.Conn) bool {
			if !auth.Probe && time.Now().Before(over) {
				refuse(conn, "not accepted: a session of this node is open")
				return false
			}
			return true
		})(w)
	}
}

// twoURLs gives the node a second URL, which is the manager's own.
func twoURLs(w *world, c *rig.NodeConfig) {
	c.URLs = append(c.URLs, "wss"+strings.TrimPrefix(w.URL, "https"))
}

// laxTLS makes 1.0.0 a version that accepts every certificate, whatever is pinned. 1.1.0
// does not.
func laxTLS(w *world, c *rig.NodeConfig) {
	w.wrap(c, fmt.Sprintf(`for arg; do
	shift
	if [ "$arg" = %[1]s ]; then
		arg=%[1]s.lax
		sed 's/^cert_fingerprint.*/accept_self_signed_cert = true/' %[1]s >$arg.$$ && chmod 600 $arg.$$ && mv $arg.$$ $arg
	fi
	set -- "$@" "$arg"
done`, w.config()))
}

// config returns the path of the node's configuration.
func (w *world) config() string { return filepath.Join(w.Dir, "node", "config.toml") }

// wrap makes the installed version a script that ends with the real program.
func (w *world) wrap(c *rig.NodeConfig, script string) {
	w.t.Helper()
	dir := w.t.TempDir()
	program, err := os.ReadFile(c.Binary)
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, "program"), program, 0o755),
			os.WriteFile(filepath.Join(dir, "edge-agent"), []byte("#!/bin/sh\n"+script+"\nexec \"$(dirname \"$0\")/program\" \"$@\"\n"), 0o755))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	c.Binary = dir
}

// slowFirstStart gives the node a health check that fails in the first four windows of
// 1.1.0's first start, and the release the time that it needs.
func slowFirstStart(w *world, c *rig.NodeConfig) {
	w.releases.FirstStartSecs = 3600
	migrated := filepath.Join(w.Dir, "migrated")
	c.Probe = []string{"/bin/sh", "-c", fmt.Sprintf(`test -e %s || ! readlink %s | grep -q 1.1.0`, migrated, filepath.Join(w.Dir, "node", "current"))}
	c.TimeoutStart = time.Minute
	before := c.OnChange
	c.OnChange = func(e supervise.Event) {
		before(e)
		if e.Kind == supervise.Started && w.starts.Load() == 1 {
			time.AfterFunc(7*window/2, func() { os.WriteFile(migrated, nil, 0o644) })
		}
	}
}

// clockAt1970 sets the node's clock back when it restarts into 1.1.0, as on a device
// without a battery. The certificate of its manager is valid since last year.
func clockAt1970(w *world, c *rig.NodeConfig) {
	withCA(w, c)
	c.Wrap = []string{"sh", "-c", `if readlink "$0" | grep -q 1.1.0; then export EDGE_AGENT_SIM_CLOCK=1970-01-01T00:00:30Z; fi; exec "$@"`, filepath.Join(w.Dir, "node", "current")}
}

// throughAProxy makes a proxy the only way to the manager, and the line the way to it.
func throughAProxy(w *world, c *rig.NodeConfig) {
	manager := strings.TrimPrefix(w.URL, "https://")
	s := &http.Server{Handler: proxyTo(manager), ReadHeaderTimeout: 10 * time.Second}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	go s.Serve(l)
	w.t.Cleanup(func() { s.Close() })
	to, err := line.New(l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(to.Close)
	w.line = to
	c.Proxy = "http://" + to.Addr()
	c.URLs = []string{"wss://manager.invalid/ws/node"}
}

// proxyTo is a proxy that knows one name, manager.invalid.
type proxyTo string

func (p proxyTo) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Host == "manager.invalid:443" {
		r.Host = string(p)
	}
	(&tunnels{to: map[string]bool{}}).ServeHTTP(rw, r)
}

// spoiltNodes has other nodes, behind the same address, try again and again with secrets
// that are wrong.
func spoiltNodes(w *world, n int) {
	d := websocket.Dialer{TLSClientConfig: w.ClientTLS(), HandshakeTimeout: 10 * time.Second}
	url := "wss" + strings.TrimPrefix(w.URL, "https") + wire.Path
	ctx, cancel := context.WithCancel(w.ctx)
	var wg sync.WaitGroup
	w.t.Cleanup(func() { cancel(); wg.Wait() })
	for i := range n {
		id := w.id // whose secret is not theirs
		if i%2 == 0 {
			id = fmt.Sprintf("6b0f3d1e-0000-4000-8000-%012d", i)
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				if conn, _, err := d.DialContext(ctx, url, nil); err == nil {
					stop := context.AfterFunc(ctx, func() { conn.Close() })
					if b, err := wire.Encode(&wire.Auth{NodeID: id, NodeSecret: "spoilt", SoftwareVersion: "1.0.0", DeviceType: "edge", ProtocolVersion: wire.ProtocolVersion}, time.Now()); err == nil {
						conn.WriteMessage(websocket.TextMessage, b)
					}
					line.Hold(conn)
					stop()
					conn.Close()
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(n) * 20 * time.Millisecond): // 50 attempts a second in all
				}
			}
		})
	}
}
