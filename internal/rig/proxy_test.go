package rig_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/bilbycast/edge-agent/internal/rig"
)

// tunnels is a proxy that supports only CONNECT, and records the destinations.
type tunnels struct {
	sync.Mutex
	to map[string]bool
}

func (p *tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
		return
	}
	p.Lock()
	p.to[r.Host] = true
	p.Unlock()
	there, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	here, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		there.Close()
		return
	}
	io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		io.Copy(there, here)
		there.Close()
	}()
	io.Copy(here, there)
	here.Close()
}

// With manager.proxy, the connection to the manager and every download use the proxy.
func TestUpgradeThroughAProxy(t *testing.T) {
	proxy := &tunnels{to: map[string]bool{}}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	var hosts sync.Map
	b := setup(t, rig.NodeConfig{Proxy: s.URL})
	wrap := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hosts.Store(r.Host, true)
			h.ServeHTTP(w, r)
		})
	}
	b.WrapHost.Store(&wrap)
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	manager, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	hosts.Store(manager.Host, true)
	proxy.Lock()
	defer proxy.Unlock()
	n := 0
	hosts.Range(func(host, _ any) bool {
		n++
		if !proxy.to[host.(string)] {
			t.Errorf("%s was reached without the proxy", host)
		}
		return true
	})
	if n != 2 || !strings.HasPrefix(s.URL, "http://127.0.0.1:") {
		t.Errorf("%d hosts", n)
	}
}
