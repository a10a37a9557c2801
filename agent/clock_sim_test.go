//go:build sim

package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
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
	"github.com/bilbycast/edge-agent/stage"
)

// A device without a clock reaches a manager whose certificate, and whose authority, were
// renewed long after the agent was built. A clock that is plausible is believed, and the
// error says what it shows.
func TestAManagerWithARenewedCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	day := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "manager"}, NotBefore: day(2033), NotAfter: day(2034).AddDate(0, 6, 0),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	for clock, want := range map[string]string{
		"1970-01-01T00:00:30Z": "404", "2034-01-01T00:00:00Z": "404", "2099-01-01T00:00:00Z": "404",
		"2030-01-01T00:00:00Z": "if the clock is behind, set it", "2034-10-01T00:00:00Z": "if it is ahead, set it; otherwise renew",
	} {
		t.Setenv("EDGE_AGENT_SIM_CLOCK", clock)
		checked, err := config.Config{
			Service: config.Service{DeviceType: "edge", InstallRoot: t.TempDir(), Binary: "edge"},
			Manager: config.Manager{URLs: []string{"wss" + strings.TrimPrefix(s.URL, "https")}, CAFile: ca, Proxy: config.NewSecret("none")},
		}.Resolve()
		if err != nil {
			t.Fatal(err)
		}
		c := settings{Settings: checked}
		d, err := c.dialer()
		if err != nil {
			t.Fatal(err)
		}
		_, err = dial(t.Context(), d, c.URLs[0])
		if err = c.explainClock(err); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", clock, err, want)
		}
	}

	// The check of the service is judged by the same clock, and by what the releases prove.
	t.Setenv("EDGE_AGENT_SIM_CLOCK", "2030-01-01T00:00:00Z")
	t.Setenv("SSL_CERT_FILE", ca)
	well := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	well.TLS = s.TLS.Clone()
	well.StartTLS()
	defer well.Close()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{c: settings{Settings: config.Settings{Layout: l}}}
	a.c.Health = config.Health{HTTP: well.URL, TimeoutSecs: 5}
	if err := a.ownCheck(t.Context()); err == nil {
		t.Error("the clock is plausible, and not believed")
	}
	dir := l.Version(release.MustVersion("1.0.0"))
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, stage.Marker), []byte(`{"version":"1.0.0","sha256":"x","signed_at":"2033-06-01T00:00:00Z"}`), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := a.ownCheck(t.Context()); err != nil {
		t.Error(err)
	}
}
