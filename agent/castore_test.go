//go:build !sim

package agent

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The CA store of the system is renewed while the agent runs: the next session knows it.
func TestTheCAStoreIsRenewedWhileTheAgentRuns(t *testing.T) {
	oldCA, _ := authority(t, "old")
	newCA, server := authority(t, "new")
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{server}}
	s.StartTLS()
	defer s.Close()
	file := filepath.Join(t.TempDir(), "store.pem")
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	a, err := newOf(rootWith(t, "wss"+strings.TrimPrefix(s.URL, "https")))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		store []byte
		want  string
	}{{oldCA, "set manager.ca_file"}, {append(oldCA, newCA...), "404"}, {newCA, "404"}, {oldCA, "set manager.ca_file"}} {
		if err := os.WriteFile(file, tt.store, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := a.session(t.Context(), a.c.URLs[0]); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}
