package probe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/cert"
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
	if err := Run(t.Context(), h, nil); err == nil {
		t.Error("an authority that nobody trusts is trusted")
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), h, nil); err != nil {
		t.Errorf("after the CA store was renewed: %v", err)
	}
}

// The check of a device without a clock is judged by what its releases prove about the time,
// and not by when the agent was built: otherwise a renewed certificate makes a service look ill.
func TestACheckByADeviceWithoutAClock(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	day := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: day(2033), NotAfter: day(2035),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "store.pem")
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	defer s.Close()
	h := config.Health{HTTP: s.URL, Dependency: config.Dependency{s.URL}, TimeoutSecs: 5}
	shows := func() time.Time { return day(2031) } // after the agent was built: plausible to it
	for name, tt := range map[string]struct {
		signed time.Time
		well   bool
	}{"no release": {time.Time{}, false}, "a release of 2034": {day(2034), true}, "a release after its end": {day(2036), false}} {
		clock := func() cert.Clock { return cert.NewClock(shows, tt.signed, "a release was signed") }
		for what, err := range map[string]error{
			"Run": Run(t.Context(), h, clock), "BeforeSwap": BeforeSwap(t.Context(), h, clock), "Dependency": Dependency(t.Context(), h, clock),
		} {
			if (err == nil) != tt.well {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}
