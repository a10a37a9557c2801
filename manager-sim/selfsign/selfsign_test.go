package selfsign_test

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
)

func TestEnsureKeepsItsCertificate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	a, err := selfsign.Ensure(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := selfsign.Ensure(dir)
	if err != nil || a.Fingerprint != b.Fingerprint {
		t.Errorf("%s, then %s, %v", a.Fingerprint, b.Fingerprint, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.PEM) {
		t.Fatal("no certificate in PEM")
	}
	leaf, err := x509.ParseCertificate(a.TLS.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "::1", "localhost"} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		st, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("PRIVATE KEY")) && st.Mode().Perm() != 0o600 {
			t.Errorf("%s holds a private key and has mode %v", e.Name(), st.Mode())
		}
	}
}
