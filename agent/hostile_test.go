package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/watchdog"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// rootWith lays out a root that runs 1.0.0, for a node whose manager is at url.
func rootWith(t *testing.T, url string) Config {
	t.Helper()
	c := config(t)
	c.Version = "1.0.0"
	c.Service.InstallRoot = t.TempDir()
	c.Service.Binary = "edge"
	c.Upgrade.Enabled = true
	zero := 0
	c.Upgrade.DrainSecs = &zero
	c.Manager = ManagerConfig{URLs: []string{url}, AllowInsecure: true, RegistrationToken: "token", Proxy: "none"}
	dir := filepath.Join(c.Service.InstallRoot, "versions", "1.0.0")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink("versions/1.0.0", filepath.Join(c.Service.InstallRoot, "current")),
		os.Symlink("versions/1.0.0", filepath.Join(c.Service.InstallRoot, "last-good"))); err != nil {
		t.Fatal(err)
	}
	return c
}

// lines is a log that a test reads while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// runAgent starts a node, as its unit does: after the watchdog. It is stopped
// when the test ends.
func runAgent(t *testing.T, c Config) *Agent {
	t.Helper()
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	watchdog.Run(t.Context(), a.c.layout)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the agent ends: %v", err)
		}
	})
	return a
}

// peer is one session at a manager of the test's.
type peer struct {
	t *testing.T
	*websocket.Conn
	auth *wire.Auth
}

func (p peer) send(m wire.Message) {
	p.t.Helper()
	b, err := wire.Encode(m, time.Now())
	if err == nil {
		err = p.WriteMessage(websocket.TextMessage, b)
	}
	if err != nil {
		p.t.Errorf("send: %v", err)
	}
}

// until reads until it is true of a message. Events are acknowledged.
func (p peer) until(what string, it func(wire.Message) bool) wire.Message {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		_, b, err := p.ReadMessage()
		if err != nil {
			p.t.Errorf("waiting for %s: %v", what, err)
			return nil
		}
		env, err := wire.Decode(b)
		if err != nil {
			p.t.Errorf("the node sends %.100q: %v", b, err)
			return nil
		}
		if e, ok := env.Message.(*wire.Event); ok {
			p.send(&wire.EventAck{EventIDs: []string{e.EventID}})
		}
		if it(env.Message) {
			return env.Message
		}
	}
}

// drain reads until the session ends.
func (p peer) drain() {
	for {
		if _, _, err := p.ReadMessage(); err != nil {
			return
		}
	}
}

func (p peer) ack(id string) *wire.CommandAck {
	p.t.Helper()
	m, _ := p.until("the ack of "+id, func(m wire.Message) bool {
		a, ok := m.(*wire.CommandAck)
		return ok && a.CommandID == id
	}).(*wire.CommandAck)
	if m == nil {
		return &wire.CommandAck{}
	}
	return m
}

func upgradeTo(id, version string) *wire.Command {
	return &wire.Command{CommandID: id, Action: wire.Action{Type: wire.ActionUpgrade, Version: version}}
}

var acks = []string{wire.FeatureEventAck}

// welcome answers auth as it should be answered.
func (p peer) welcome() {
	if p.auth.NodeID == "" {
		p.send(&wire.RegisterAck{NodeID: "n", NodeSecret: "s", Features: acks})
	} else {
		p.send(&wire.AuthOK{Features: acks})
	}
}

// manager serves each session by serve, and returns its URL.
func manager(t *testing.T, serve func(p peer)) string {
	t.Helper()
	var up websocket.Upgrader
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		_, b, err := conn.ReadMessage()
		if err != nil {
			return
		}
		env, err := wire.Decode(b)
		auth, ok := env.Message.(*wire.Auth)
		if err != nil || !ok {
			t.Errorf("the node begins with %.100q: %v", b, err)
			return
		}
		serve(peer{t, conn, auth})
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

func wait(t *testing.T, what string, it func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !it(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Texts of a manager, of any length and of any bytes, are answered as what they
// are, and poison nothing: the next upgrade is taken, and state.json stays small.
func TestLongTextsOfAManagerPoisonNothing(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 80<<10)
	done := make(chan struct{})
	url := manager(t, func(p peer) {
		p.welcome()
		if p.auth.NodeID != "" {
			return
		}
		defer close(done)
		for i, action := range []wire.Action{
			{Version: "1.1.0", Channel: long}, {Version: "1.1.0", Channel: strings.Repeat("\x00<", 30<<10)}, {Version: long}, {Version: "1.1.0", TargetArch: long}, {Version: "1.1.0", Variant: strings.Repeat("<>&\"\\", 10<<10)},
			{Version: "1.1.0", Channel: "a\nb\u2028\u202e"},
		} {
			action.Type = wire.ActionUpgrade
			id := fmt.Sprint("evil", i)
			p.send(&wire.Command{CommandID: id, Action: action})
			if a := p.ack(id); a.Success || a.ErrorCode == release.Internal || len(a.Error) > 1100 {
				t.Errorf("%d: %s, error of %d bytes", i, a.ErrorCode, len(a.Error))
			}
		}
		// An honest command is taken, as far as the release host.
		p.send(upgradeTo("honest", "1.1.0"))
		p.until("upgrade_started", func(m wire.Message) bool {
			e, ok := m.(*wire.Event)
			return ok && e.Details.ErrorCode == release.Started
		})
	})
	c := rootWith(t, url)
	a := runAgent(t, c)
	<-done
	if st, err := os.Stat(filepath.Join(c.Service.InstallRoot, "state.json")); err != nil || st.Size() > 20<<10 {
		t.Errorf("state.json: %v, %v", st.Size(), err)
	}
	if err := a.unusable(); err != nil {
		t.Error(err)
	}
}

// Refused commands are answered, however many, and written down at a bounded rate.
func TestRefusedCommandsAreWrittenAtABoundedRate(t *testing.T) {
	t.Parallel()
	const many = 500
	done := make(chan struct{})
	url := manager(t, func(p peer) {
		p.welcome()
		if p.auth.NodeID != "" {
			return
		}
		defer close(done)
		for i := range many {
			p.send(upgradeTo(fmt.Sprint("c", i), "0.0.1"))
		}
		answered := map[string]bool{} // in any order: some acks go through the outbox
		p.until("all acks", func(m wire.Message) bool {
			if a, ok := m.(*wire.CommandAck); ok {
				answered[a.CommandID] = true
				if a.ErrorCode != release.VersionTooOld {
					t.Errorf("%s: %s", a.CommandID, a.ErrorCode)
				}
			}
			return len(answered) == many
		})
	})
	c := rootWith(t, url)
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	var writes atomic.Int64
	a.c.layout = a.c.layout.On(fsutil.Disk{Seam: counting{&writes}})
	watchdog.Run(t.Context(), a.c.layout)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	<-done
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// Each of the refusalBurst that are recorded has some 40 changes of the disk.
	if n := writes.Load(); n > 60*refusalBurst {
		t.Errorf("%d changes of the disk for %d refused commands", n, many)
	}
}

type counting struct{ n *atomic.Int64 }

func (c counting) Change(_ fsutil.Op, make func() error) error {
	c.n.Add(1)
	return make()
}

// One event_ack, of many ids, for a full outbox: one pass over the directory.
func TestAnEventAckOfManyIDs(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	box := l.Outbox()
	var ids []string
	for i := range 200 {
		id := fmt.Sprintf("e%d", i)
		ids = append(ids, id)
		if err := box.Put(state.Entry{ID: id, Event: &state.Event{Code: release.Started, Message: "m"}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 9_000 {
		ids = append(ids, fmt.Sprintf("../../%d", i), "")
	}
	var changes atomic.Int64
	if err := l.On(fsutil.Disk{Seam: counting{&changes}}).Outbox().Remove(ids...); err != nil {
		t.Fatal(err)
	}
	if left, _, _ := box.List(); len(left) != 0 || changes.Load() != 201 {
		t.Errorf("%d entries are left after %d changes, want 201", len(left), changes.Load())
	}
	b, err := wire.Encode(&wire.EventAck{EventIDs: make([]string, wire.MaxEventIDs+1)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Decode(b); err == nil {
		t.Error("an event_ack of any number of ids is taken")
	}
}

// An endless answer to the handshake, of the manager or of a proxy before it, ends
// the attempt after maxHandshake bytes.
func TestAnEndlessHandshakeIsBounded(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"HTTP/1.1 101 Switching Protocols\r\nX: ", "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 S\r\nX: ", "HTTP/1.1 ", strings.Repeat("A: b\r\n", 10), ""} {
		for _, proxied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%.12q proxied %t", first, proxied), func(t *testing.T) {
				t.Parallel()
				var sent atomic.Int64
				addr := endless(t, first, &sent)
				c := config(t)
				c.Manager = ManagerConfig{URLs: []string{"ws://127.0.0.1:1"}, AllowInsecure: true, Proxy: "none"}
				if proxied {
					c.Manager.Proxy = "http://" + addr
				} else {
					c.Manager.URLs[0] = "ws://" + addr
				}
				r, err := c.resolve()
				if err != nil {
					t.Fatal(err)
				}
				d, err := r.dialer()
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err = dial(ctx, d, r.urls[0])
				if err == nil || ctx.Err() != nil || len(err.Error()) > 700 {
					t.Errorf("%v, after %d bytes", err, sent.Load())
				}
			})
		}
	}
}

// endless answers each connection by first and then by letters without an end.
func endless(t *testing.T, first string, sent *atomic.Int64) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.Read(make([]byte, 4<<10))
				io.WriteString(conn, first)
				junk := bytes.Repeat([]byte("a"), 16<<10)
				for sent.Load() < 1<<30 {
					n, err := conn.Write(junk)
					sent.Add(int64(n))
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// After the handshake the bound is lifted: a session may be as long as it likes.
func TestASessionIsNotBounded(t *testing.T) {
	t.Parallel()
	url := manager(t, func(p peer) {
		p.welcome()
		for range 10 {
			p.send(&wire.AuthError{}) // ends no read loop of dial
			p.WriteMessage(websocket.TextMessage, bytes.Repeat([]byte(" "), 100<<10))
		}
	})
	r, err := rootWith(t, url).resolve()
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.dialer()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dial(t.Context(), d, r.urls[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b, _ := wire.Encode(&wire.Auth{NodeID: "n", NodeSecret: "s"}, time.Now())
	if err := conn.WriteMessage(websocket.TextMessage, b); err != nil {
		t.Fatal(err)
	}
	total := 0
	for {
		_, b, err := conn.ReadMessage()
		if err != nil {
			break
		}
		total += len(b)
	}
	if total < 2*maxHandshake {
		t.Errorf("the session ended after %d bytes", total)
	}
}

// register_ack is an answer to a registration token, and to nothing else.
func TestRegisterAckAnswersATokenOnly(t *testing.T) {
	t.Parallel()
	sessions := make(chan *wire.Auth, 100)
	url := manager(t, func(p peer) {
		select {
		case sessions <- p.auth:
		default:
		}
		p.send(&wire.RegisterAck{NodeID: "gone", NodeSecret: "gone"})
		p.drain()
	})
	c := rootWith(t, url)
	path := filepath.Join(c.Service.InstallRoot, "credentials.json")
	const mine = `{"node_id":"mine","node_secret":"secret"}`
	if err := os.WriteFile(path, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.session(t.Context(), a.c.urls[0]); err == nil || !strings.Contains(err.Error(), "register_ack") {
		t.Errorf("the session ends with %v", err)
	}
	if auth := <-sessions; auth.RegistrationToken != "" || auth.NodeID != "mine" {
		t.Errorf("the node sent %+v", auth)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != mine {
		t.Errorf("credentials.json is %s, %v", b, err)
	}
}

// Where credentials cannot be kept, no token is sent: each would make a node.
func TestNoTokenIsSentWhereCredentialsCannotBeKept(t *testing.T) {
	t.Parallel()
	var registered atomic.Int64
	url := manager(t, func(p peer) {
		if p.auth.RegistrationToken != "" {
			registered.Add(1)
		}
		p.welcome()
		p.drain()
	})
	a, err := New(rootWith(t, url))
	if err != nil {
		t.Fatal(err)
	}
	for name, errno := range map[string]error{"read-only": syscall.EROFS, "full": syscall.ENOSPC, "another's": syscall.EACCES} {
		a.c.layout = a.c.layout.On(fsutil.Disk{Seam: failing{errno}})
		if err := a.session(t.Context(), a.c.urls[0]); err == nil || !strings.Contains(err.Error(), "credentials.json could not be written") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := registered.Load(); n != 0 {
		t.Errorf("%d registrations", n)
	}
	// Credentials that could not be kept all the same are used, not made again.
	var full atomic.Bool
	a.c.layout = a.c.layout.On(fsutil.Disk{Seam: fullDisk{&full, "credentials.json"}})
	full.Store(true)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		go func() { wait(t, "authenticated", func() bool { return a.isAuthenticated() }); cancel() }()
		a.session(ctx, a.c.urls[0])
		a.setAuthenticated(false)
		cancel()
	}
	if n := registered.Load(); n != 1 || a.registered.NodeID != "n" {
		t.Errorf("%d registrations, credentials in memory: %t", n, a.registered.NodeID != "")
	}
	full.Store(false)
	if c, err := a.credentials(t.Context()); err != nil || c.NodeID != "n" || a.registered.NodeID != "" {
		t.Errorf("once there is space: %+v, %v", c, err)
	}
}

func (a *Agent) isAuthenticated() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.authenticated
}

type failing struct{ err error }

func (f failing) Change(op fsutil.Op, make func() error) error {
	if op.Kind == fsutil.OpRemove {
		return make()
	}
	return f.err
}

// A disk that is full when a command arrives: the manager hears upgrade_disk_full,
// as the ack and as an event.
func TestACommandOnAFullDisk(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	var full atomic.Bool
	url := manager(t, func(p peer) {
		p.welcome()
		if p.auth.NodeID != "" {
			return
		}
		defer close(done)
		p.until("the first health", func(m wire.Message) bool { _, ok := m.(*wire.Health); return ok })
		full.Store(true)
		p.send(upgradeTo("c", "1.1.0"))
		var ack, event bool
		p.until("ack and event", func(m wire.Message) bool {
			switch m := m.(type) {
			case *wire.CommandAck:
				ack = m.CommandID == "c" && m.ErrorCode == release.DiskFull
			case *wire.Event:
				event = m.Details.ErrorCode == release.DiskFull && m.Details.CommandID == "c"
			}
			return ack && event
		})
	})
	c := rootWith(t, url)
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	watchdog.Run(t.Context(), a.c.layout)
	a.c.layout = a.c.layout.On(fsutil.Disk{Seam: fullDisk{&full, "state.json"}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	<-done
	full.Store(false)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Health says why upgrades are not offered.
func TestUpgradesAreOfferedOnlyIfAWatchdogRan(t *testing.T) {
	t.Parallel()
	for _, ran := range []bool{false, true} {
		t.Run(fmt.Sprint(ran), func(t *testing.T) {
			t.Parallel()
			got := make(chan *wire.Health, 1)
			code := make(chan release.Code, 1)
			url := manager(t, func(p peer) {
				p.welcome()
				if p.auth.NodeID != "" {
					return
				}
				got <- p.until("health", func(m wire.Message) bool { _, ok := m.(*wire.Health); return ok }).(*wire.Health)
				if !ran {
					p.send(upgradeTo("c", "1.1.0"))
					code <- p.ack("c").ErrorCode
				}
			})
			a, err := New(rootWith(t, url))
			if err != nil {
				t.Fatal(err)
			}
			if ran {
				watchdog.Run(t.Context(), a.c.layout)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- a.Run(ctx) }()
			h := <-got
			if offered := len(h.Capabilities) == 1; offered != ran || (h.UpgradeUnavailable == "") != ran {
				t.Errorf("capabilities %v, because %q", h.Capabilities, h.UpgradeUnavailable)
			}
			if !ran {
				if !strings.Contains(h.UpgradeUnavailable, "no watchdog ran before this start") || !strings.Contains(h.UpgradeUnavailable, "edge-agent unit") {
					t.Errorf("the reason is %q", h.UpgradeUnavailable)
				}
				if c := <-code; c != release.Internal {
					t.Errorf("an upgrade: %s", c)
				}
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// Without a watchdog a trial ends all the same: the agent counts.
func TestATrialWithoutAWatchdogEnds(t *testing.T) {
	t.Parallel()
	for name, older := range map[string]bool{"no watchdog": false, "a watchdog that records no start": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newTrial(t, t.TempDir()) // its first start was counted by a watchdog
			l := o.c.layout
			if !older {
				if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree) (state.State, state.Tree, error) {
					s.BootAttempts = 0
					return s, tr, nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			for start := 1; ; start++ {
				a := newAgent(o.c)
				err := a.countStart(t.Context())
				res, readErr := l.Read()
				if readErr != nil {
					t.Fatal(readErr)
				}
				if start > 3 {
					if err == nil || res.State.Status != state.RolledBack || res.Tree.Current.String() != "1.0.0" {
						t.Errorf("start %d: %v, %s, %s", start, err, res.State.Status, res.Tree.Current)
					}
					break
				}
				if err != nil || res.State.BootAttempts != start {
					t.Errorf("start %d: %v, counted %d", start, err, res.State.BootAttempts)
				}
				if counted := a.uncounted == nil; counted != (older && start == 1) {
					t.Errorf("start %d: %v", start, a.uncounted)
				}
				a.failStart(t.Context(), fmt.Errorf("cause %d", start))
			}
			res, _ := l.Read()
			if got, _ := json.Marshal(res.State.FailedStarts); string(got) != `["cause 1","cause 2","cause 3"]` {
				t.Errorf("failed starts: %s", got)
			}
		})
	}
}

// An operator rolls back while the node drains, and another command arrives: the
// node restarts once, and stages nothing more.
func TestACommandAfterTheSwapIsRefused(t *testing.T) {
	t.Parallel()
	o := newTrial(t, t.TempDir())
	o.c.policy = release.Policy{Enabled: true, Channels: []string{"stable"}}
	o.busy = true // as begin does
	o.closeSwap()
	if _, err := o.do(t.Context(), func(s state.State, tr state.Tree) (state.State, state.Tree, error) {
		return state.RollBack(s, tr, release.Version{}, time.Now())
	}); err != nil {
		t.Fatal(err)
	}
	ack := func(id string) *wire.CommandAck {
		o.upgrade(t.Context(), upgradeTo(id, "1.2.0"))
		res, err := o.c.layout.Read()
		if err != nil {
			t.Fatal(err)
		}
		c, _ := res.State.Command(id)
		return o.ack(c)
	}
	if a := ack("next"); a.ErrorCode != release.InProgress {
		t.Errorf("%+v", a)
	}
	o.closeSwap() // twice is once
	o.staging.Wait()
}

// A restart in the middle of staging begins the same command again.
func TestAnInterruptedUpgradeIsResumed(t *testing.T) {
	t.Parallel()
	log := &lines{}
	c := rootWith(t, "wss://127.0.0.1:1")
	c.Log = c.Log.Output(log)
	c.Manager.Proxy = "http://127.0.0.1:1" // neither the manager nor the release host is reached
	c.Upgrade.AllowedChannels = []string{"beta"}
	l, err := state.At(c.Service.InstallRoot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.AtStart().Do(t.Context(), func(s state.State, tr state.Tree) (state.State, state.Tree, error) {
		return state.Accept(s, state.Command{ID: "mine", Version: release.MustVersion("1.1.0"), Channel: "beta"}), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	runAgent(t, c)
	wait(t, "resumed", func() bool { return strings.Contains(log.String(), "resuming it") })
	if strings.Contains(log.String(), `"level":"error"`) {
		t.Errorf("an ordinary reboot is an error: %s", log)
	}
	res, err := l.Read()
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := res.State.Command("mine"); got.Done || got.Resumed != 1 {
		t.Errorf("the command: %+v", got)
	}
}
