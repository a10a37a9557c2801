package install

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// Doctor finds what a handshake does not show: credentials that the manager refuses, and
// a connection that it ends. A manager that does not know probes gets no credentials, and
// counts as reached.
func TestDoctorProbesTheManager(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		older         bool
		credentials   string
		answer        wire.Message
		cause, remedy string // "": no fault
	}{
		"refused":  {answer: &wire.AuthError{Message: "wrong secret"}, cause: `the manager refuses this node: "wrong secret"`, remedy: "get a new token"},
		"ends":     {answer: &wire.AuthOK{Probe: true}, cause: "s after authentication", remedy: "see the manager's log"},
		"damaged":  {credentials: "{", cause: "is damaged", remedy: "set registration_token"},
		"is older": {older: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var up websocket.Upgrader
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				header := http.Header{wire.FeaturesHeader: {wire.FeatureProbe}}
				if tt.older {
					header = nil
				}
				conn, err := up.Upgrade(w, r, header)
				if err != nil {
					return
				}
				defer conn.Close()
				_, b, err := conn.ReadMessage()
				if err != nil {
					return
				}
				if tt.answer == nil {
					t.Errorf("the manager got %s", b)
					return
				}
				if b, err = wire.Encode(tt.answer, time.Now()); err == nil {
					err = conn.WriteMessage(websocket.TextMessage, b)
				}
				if err != nil {
					t.Error(err)
				}
			}))
			t.Cleanup(s.Close)
			d := node(t, "wss"+strings.TrimPrefix(s.URL, "https"))
			d.c.Manager.CertFingerprint = config.Pins{fmt.Sprintf("%x", sha256.Sum256(s.Certificate().Raw))}
			if tt.credentials == "" {
				tt.credentials = `{"node_id":"n","node_secret":"hunter2"}`
			}
			if err := os.WriteFile(d.l.CredentialsFile(), []byte(tt.credentials), 0o600); err != nil {
				t.Fatal(err)
			}
			d.manager(t.Context())
			if len(d.findings) != 1 || d.findings[0].OK != (tt.cause == "") || !strings.Contains(d.findings[0].Cause, tt.cause) || !strings.Contains(d.findings[0].Remedy, tt.remedy) || strings.Contains(fmt.Sprint(d.findings), "hunter2") {
				t.Errorf("found %+v, want %q, %q", d.findings, tt.cause, tt.remedy)
			}
		})
	}
}
