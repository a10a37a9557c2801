//go:build !sim

package agent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// secureManager is a manager of a test behind TLS.
type secureManager struct {
	*httptest.Server
	url, ca, key string       // key is the fingerprint of its key
	auths        atomic.Int64 // that it received
}

// behindTLS serves h.
func behindTLS(t *testing.T, h http.Handler) *secureManager {
	t.Helper()
	ca, server := authority(t, "manager")
	m := &secureManager{Server: httptest.NewUnstartedServer(h), ca: filepath.Join(t.TempDir(), "ca.pem")}
	m.TLS = &tls.Config{Certificates: []tls.Certificate{server}}
	m.StartTLS()
	t.Cleanup(m.Close)
	m.url = "wss" + strings.TrimPrefix(m.URL, "https")
	cert, err := x509.ParseCertificate(server.Certificate[0])
	if err := errors.Join(err, os.WriteFile(m.ca, ca, 0o600)); err != nil {
		t.Fatal(err)
	}
	m.key = fingerprint(cert)
	return m
}

// answering serves each WebSocket by serve, after the first message.
func answering(t *testing.T, header http.Header, serve func(p peer)) *secureManager {
	t.Helper()
	var up websocket.Upgrader
	var m *secureManager
	m = behindTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, header)
		if err != nil {
			return
		}
		defer conn.Close()
		_, b, err := conn.ReadMessage()
		if err != nil {
			return
		}
		m.auths.Add(1)
		env, err := wire.Decode(b)
		auth, ok := env.Message.(*wire.Auth)
		if err != nil || !ok || !auth.Probe || auth.NodeID != "n" || auth.NodeSecret != "s" || auth.RegistrationToken != "" {
			t.Errorf("the probe begins with %s", b)
			return
		}
		serve(peer{t, conn, auth})
	}))
	return m
}

var announced = http.Header{wire.FeaturesHeader: {wire.FeatureProbe}}

func acceptProbe(p peer) { p.send(&wire.AuthOK{Features: acks, Probe: true}); p.drain() }

func refusing(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
}

// silent accepts connections, and never answers.
func silent(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// closed is an address on which nobody listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// registeredNode is a node with credentials, whose manager is m.
func registeredNode(t *testing.T, m *secureManager) node {
	t.Helper()
	c := rootWith(t, m.url)
	c.Manager.CAFile = m.ca
	if err := os.WriteFile(layoutOf(t, c).CredentialsFile(), []byte(`{"node_id":"n","node_secret":"s"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// contents is everything below a directory, with the times of its changes.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&all, path, st.Mode(), st.Size(), st.ModTime())
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			fmt.Fprintf(&all, "%s\n%v\n", b, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// tunnel is a proxy for CONNECT.
func tunnel(w http.ResponseWriter, r *http.Request) {
	out, err := net.Dial("tcp", r.Host)
	if err != nil || r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	in, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { io.Copy(out, buf); out.Close() }()
	go func() { io.Copy(in, out); in.Close() }()
}
