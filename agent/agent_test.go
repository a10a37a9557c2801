package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// node is a configuration with what its program adds.
type node struct {
	config.Config
	Options
}

func newOf(n node) (*Agent, error) { return New(n.Config, n.Options) }

func (n node) resolve() (settings, error) { return resolve(n.Config, n.Options) }

func bareNode(t *testing.T) node {
	t.Helper()
	return node{
		config.Config{
			Service: config.Service{DeviceType: "edge", InstallRoot: t.TempDir()},
			Manager: config.Manager{URLs: []string{"wss://manager.example"}},
		},
		Options{Version: "1.0.0", Notify: func(string) error { return nil }},
	}
}

func TestAProgramNeedsItsVersion(t *testing.T) {
	t.Parallel()
	c := bareNode(t)
	c.Version = "dev"
	if _, err := newOf(c); err == nil || !strings.Contains(err.Error(), "the program's version: version \"dev\" is not") {
		t.Errorf("got %v", err)
	}
}

func TestUnderTypeNotifyNotifyMustBeSet(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/x")
	c := bareNode(t)
	c.Notify = nil
	if _, err := c.resolve(); err == nil || !strings.Contains(err.Error(), "set it to systemd.Notify") {
		t.Errorf("got %v", err)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := loadCredentials(l); err != nil || c.NodeID != "" {
		t.Errorf("none yet: %+v, %v", c, err)
	}
	want := credentials{"node", "hunter2"}
	if err := saveCredentials(t.Context(), l, want); err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(l.CredentialsFile()); st.Mode() != fs.FileMode(0o600) {
		t.Errorf("mode %v", st.Mode())
	}
	if c, err := loadCredentials(l); err != nil || c != want {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, damaged := range []string{"", "{", `{"node_id":"x"}`, `{"node_secret":"hunter2"`} {
		if err := os.WriteFile(l.CredentialsFile(), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadCredentials(l); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "is damaged; remove it") {
			t.Errorf("%q: %v", damaged, err)
		}
	}
}

func TestErrorsForTheManagerAreBounded(t *testing.T) {
	t.Parallel()
	code, why := codeAndText(release.Errorf(release.DiskFull, "%s", strings.Repeat("é", 5000)))
	if code != release.DiskFull || len(why) > wire.MaxText || strings.ContainsRune(why, '\uFFFD') {
		t.Errorf("%s, %d bytes", code, len(why))
	}
	if code, _ := codeAndText(errors.New("x")); code != release.Internal {
		t.Error(code)
	}
}

// An answer that the manager is busy differs from a refusal.
func TestBusyManagers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		header string
		busy   bool
		after  time.Duration
	}{
		{503, "7", true, 7 * time.Second},
		{429, "", true, 0},
		{500, "soon", true, 0},
		{503, "99999999999", true, 0},
		{503, "999999", true, maxRetryAfter},
		{403, "7", false, 0},
		{200, "", false, 0},
	} {
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", tt.header)
			w.WriteHeader(tt.status)
		}))
		_, err := dial(t.Context(), websocket.DefaultDialer, "ws"+strings.TrimPrefix(host.URL, "http"))
		host.Close()
		var busy *busyError
		if got := errors.As(err, &busy); err == nil || got != tt.busy {
			t.Errorf("%d: %v", tt.status, err)
		} else if got && tt.header != "99999999999" && busy.retryAfter != tt.after {
			t.Errorf("%d, Retry-After %q: %v", tt.status, tt.header, busy.retryAfter)
		}
	}
}

// The agent trusts a manager by its pinned certificate, or by a CA. Without either it
// refuses the connection.
func TestAnotherManagersCertificateIsRefused(t *testing.T) {
	t.Parallel()
	right := httptest.NewTLSServer(http.NotFoundHandler())
	defer right.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: right.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := func(b []byte) string { x := sha256.Sum256(b); return hex.EncodeToString(x[:]) }
	cert, key := sum(right.Certificate().Raw), sum(right.Certificate().RawSubjectPublicKeyInfo)
	other := strings.Repeat("5a", 32)
	for _, tt := range []struct {
		name string
		m    config.Manager
		want string // "": the handshake is done, and the manager answers 404
	}{
		{"its pin", config.Manager{CertFingerprint: config.Pins{cert}}, ""},
		{"several pins, one is its", config.Manager{CertFingerprint: config.Pins{other, strings.ToUpper(cert)}}, ""},
		{"the pin of its key", config.Manager{KeyFingerprint: config.Pins{key}}, ""},
		{"another pin, and that of its key", config.Manager{CertFingerprint: config.Pins{other}, KeyFingerprint: config.Pins{other, key}}, ""},
		{"another pin", config.Manager{CertFingerprint: config.Pins{other}}, "if the certificate was replaced"},
		{"the key's hash as the certificate's", config.Manager{CertFingerprint: config.Pins{key}}, "has the SHA-256 " + cert},
		{"the certificate's hash as the key's", config.Manager{KeyFingerprint: config.Pins{cert}}, "and its key " + key},
		{"another pin, and accept_self_signed_cert", config.Manager{CertFingerprint: config.Pins{other}, AcceptSelfSignedCert: true}, "neither is pinned"},
		{"its CA", config.Manager{CAFile: ca}, ""},
		{"nobody", config.Manager{}, "set manager.ca_file to the CA that signed the manager's certificate, or manager.cert_fingerprint"},
	} {
		c := bareNode(t)
		tt.m.URLs, tt.m.Proxy = []string{"wss" + strings.TrimPrefix(right.URL, "https")}, config.NewSecret("none")
		c.Manager = tt.m
		r, err := c.resolve()
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.dialer()
		if err != nil {
			t.Fatal(err)
		}
		want := tt.want
		if want == "" {
			want = "404"
		}
		if _, err := dial(t.Context(), d, tt.m.URLs[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", tt.name, err, want)
		}
	}
}
