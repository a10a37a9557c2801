//go:build !sim

package verify_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

// A genuine signature of Sigstore's public instance holds by the embedded root,
// and is refused by the default rows because of who signed, not of how.
func TestAGenuineSignature(t *testing.T) {
	t.Parallel()
	artefact, err := os.ReadFile("testdata/public/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("testdata/public/a.txt.sigstore")
	if err != nil {
		t.Fatal(err)
	}
	embedded, err := os.ReadFile("trust/trusted_root.json")
	if err != nil {
		t.Fatal(err)
	}
	tr, err := root.NewTrustedRootFromJSON(embedded)
	if err != nil {
		t.Fatal(err)
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	v, err := sigstore.NewVerifier(tr, sigstore.WithSignedCertificateTimestamps(1), sigstore.WithTransparencyLog(1), sigstore.WithObserverTimestamps(1))
	if err != nil {
		t.Fatal(err)
	}
	res, err := v.Verify(&b, sigstore.NewPolicy(sigstore.WithArtifact(strings.NewReader(string(artefact))), sigstore.WithoutIdentitiesUnsafe()))
	if err != nil {
		t.Fatalf("the embedded root does not prove a genuine signature: %v", err)
	}
	t.Logf("signed by %s at %s", res.Signature.Certificate.SubjectAlternativeName, res.VerifiedTimestamps[0].Timestamp)

	// It is of 2024, so a bundle v0.2, with the very parts that v0.3 has.
	var parts map[string]any
	if err := json.Unmarshal(raw, &parts); err != nil {
		t.Fatal(err)
	}
	vm := parts["verificationMaterial"].(map[string]any)
	vm["certificate"] = vm["x509CertificateChain"].(map[string]any)["certificates"].([]any)[0]
	delete(vm, "x509CertificateChain")
	parts["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.3+json"
	v3, err := json.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := verify.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		bundle []byte
		code   release.Code
		text   string
	}{
		{raw, release.SignatureInvalid, "a bundle v0.3 is required"},
		{v3, release.IdentityNotAllowed, "signer not allowed: "}, // all before that holds
	} {
		_, err := trust.Release(artefact, tt.bundle)
		var coded *release.Error
		if !errors.As(err, &coded) || coded.Code != tt.code || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("got %v, want %s: %s", err, tt.code, tt.text)
		}
		t.Log(err)
	}
	if _, err := trust.Release(append(artefact, '!'), v3); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Errorf("another artefact: %v", err)
	}
}
