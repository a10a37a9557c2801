//go:build !sim

package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// Texts of a manager may have any length and any bytes. The node refuses such a command,
// state.json stays small, and the next upgrade starts.
func TestLongTextsOfAManagerAreBounded(t *testing.T) {
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
		// An honest command starts an upgrade, which reaches the release host.
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
	if err := a.unavailable(); err != nil {
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
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	var writes atomic.Int64
	a.c.Layout = a.c.Layout.On(fsutil.Disk{Seam: counting{&writes}})
	watchdog.Run(t.Context(), a.c.Layout)
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
		t.Error("an event_ack of any number of ids is accepted")
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
				c := bareNode(t)
				c.Manager = config.Manager{URLs: []string{"ws://127.0.0.1:1"}, AllowInsecure: true, Proxy: config.NewSecret("none")}
				if proxied {
					c.Manager.Proxy = config.NewSecret("http://" + addr)
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
				_, err = dial(ctx, d, r.URLs[0])
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
	conn, err := dial(t.Context(), d, r.URLs[0])
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
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.session(t.Context(), a.c.URLs[0]); err == nil || !strings.Contains(err.Error(), "register_ack") {
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
	a, err := newOf(rootWith(t, url))
	if err != nil {
		t.Fatal(err)
	}
	for name, errno := range map[string]error{"read-only": syscall.EROFS, "full": syscall.ENOSPC, "another's": syscall.EACCES} {
		a.c.Layout = a.c.Layout.On(fsutil.Disk{Seam: failing{errno}})
		if err := a.session(t.Context(), a.c.URLs[0]); err == nil || !strings.Contains(err.Error(), "credentials.json could not be written") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := registered.Load(); n != 0 {
		t.Errorf("%d registrations", n)
	}
	// Credentials that could not be kept all the same are used, not made again.
	var full atomic.Bool
	a.c.Layout = a.c.Layout.On(fsutil.Disk{Seam: fullDisk{&full, "credentials.json"}})
	full.Store(true)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		go func() { wait(t, "authenticated", func() bool { return a.isAuthenticated() }); cancel() }()
		a.session(ctx, a.c.URLs[0])
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
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	watchdog.Run(t.Context(), a.c.Layout)
	a.c.Layout = a.c.Layout.On(fsutil.Disk{Seam: fullDisk{&full, "state.json"}})
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
