package probe

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/config"
)

// A service whose check is at an https address is well once the CA store of the system has
// its authority: the agent need not be restarted for that.
func TestACheckByTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "store.pem")
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	h := config.Health{HTTP: s.URL, TimeoutSecs: 5}
	if err := Run(t.Context(), h); err == nil {
		t.Error("an authority that nobody trusts is trusted")
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), h); err != nil {
		t.Errorf("after the CA store was renewed: %v", err)
	}
}
