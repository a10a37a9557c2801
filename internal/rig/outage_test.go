package rig_test

import (
	"github.com/bilbycast/edge-agent/internal/box"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/rig"
)

// unreachableHost is a proxy that cannot reach one host while it is down.
type unreachableHost struct {
	tunnels
	host string
	down atomic.Bool
}

func (o *unreachableHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Host == o.host && o.down.Load() {
		http.Error(w, "no route to host", http.StatusServiceUnavailable)
		return
	}
	o.tunnels.ServeHTTP(w, r)
}

// breaking cuts the connection after n bytes, and calls then.
type breaking struct {
	http.ResponseWriter
	n    int
	then func()
}

func (b *breaking) Write(p []byte) (int, error) {
	if b.n -= len(p); b.n < 0 {
		b.ResponseWriter.(http.Flusher).Flush()
		b.then()
		panic(http.ErrAbortHandler)
	}
	return b.ResponseWriter.Write(p)
}

// An outage in the middle of a download ends no upgrade, also if the node restarts meanwhile:
// it says what it waits for, and continues where the download ended.
func TestAnUpgradeOutlastsAnOutageAndARestart(t *testing.T) {
	box.Slow(t)
	proxy := &unreachableHost{tunnels: tunnels{to: map[string]bool{}}}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	b := setup(t, rig.NodeConfig{Proxy: s.URL})
	b.releases.PadBytes = 4 << 20
	b.publish("1.1.0", "")
	proxy.host = strings.TrimPrefix(b.Host, "https://")
	var mu sync.Mutex
	var ranges []string
	wrap := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".tar.gz") {
				mu.Lock()
				first := len(ranges) == 0
				ranges = append(ranges, r.Header.Get("Range"))
				mu.Unlock()
				if first {
					w = &breaking{w, 2 << 20, func() { proxy.down.Store(true) }}
				}
			}
			h.ServeHTTP(w, r)
		})
	}
	b.WrapHost.Store(&wrap)
	waits := func() string {
		n, err := b.Client.Node(b.ctx, b.id)
		if err != nil {
			t.Fatal(err)
		}
		if n.Hold == nil {
			return ""
		}
		return n.Hold.Reason
	}
	until := func(what string, it func() bool) {
		t.Helper()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for !it() {
			select {
			case <-b.ctx.Done():
				t.Fatalf("waiting for %s", what)
			case <-tick.C:
			}
		}
	}
	mark, id := b.upgrade("1.1.0")
	until("what the node waits for", func() bool { return strings.Contains(waits(), "cannot reach the host") })
	b.node.Stop()
	text, err := os.ReadFile(b.node.Root + "/state.json")
	if err != nil || !strings.Contains(string(text), "the proxy cannot reach the host: it answers 503") {
		t.Errorf("state.json: %v: %s", err, text)
	}
	b.node.Start()
	until("the node to wait again", func() bool {
		journal, _ := os.ReadFile(b.node.Journal)
		_, after, ok := strings.Cut(string(journal), "resuming it")
		return ok && strings.Contains(after, "the download waits for")
	})
	proxy.down.Store(false)
	if done := b.event(mark, "upgrade_completed"); done.CommandID != id {
		t.Errorf("completed by command %s, want %s", done.CommandID, id)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ranges) != 2 || !strings.HasPrefix(ranges[1], "bytes=") {
		t.Errorf("the tarball was asked for as %q", ranges)
	}
}
