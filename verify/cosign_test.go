package verify_test

import (
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/verify"
)

// Real cosign accepts our fake bundles, and refuses one for another manifest: so
// the fake is like the real thing. It is optional: cosign takes minutes to build.
//
//	CGO_ENABLED=0 go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.2
func TestCosignAcceptsOurBundles(t *testing.T) {
	t.Parallel()
	cosign, err := exec.LookPath("cosign")
	if err != nil {
		t.Skip("cosign is not installed")
	}
	root, err := instance().TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	for name, opt := range map[string]fakesig.Opt{"rekor v1": {}, "rekor v1 and a timestamp": {TSA: true}, "rekor v2": {RekorV2: true}} {
		dir := t.TempDir()
		m := manifest(t, "1.5.0")
		b, err := instance().Sign(m, claims(), signedAt, opt)
		if err != nil {
			t.Fatal(err)
		}
		for file, data := range map[string][]byte{"manifest.json": m, "other.json": append(m[:len(m):len(m)], ' '), "bundle": b, "root.json": root} {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		run := func(file string) ([]byte, error) {
			cmd := exec.CommandContext(t.Context(), cosign, "verify-blob", "--bundle", "bundle", "--trusted-root", "root.json",
				"--certificate-oidc-issuer", verify.GitHubIssuer, "--certificate-identity", claims().SAN, file)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
			return cmd.CombinedOutput()
		}
		if out, err := run("manifest.json"); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if out, err := run("other.json"); err == nil {
			t.Errorf("%s: cosign accepts another manifest\n%s", name, out)
		}
	}
}

// A bundle of real cosign, keyless and in its new format, with a fake Fulcio and Rekor,
// is accepted like any other. Only its claims decide.
func TestBundlesOfCosignAreAccepted(t *testing.T) {
	t.Parallel()
	cosign, err := exec.LookPath("cosign")
	if err != nil {
		t.Skip("cosign is not installed")
	}
	// cosign asks the clock, so this instance is of today.
	in := fakesig.New(time.Now().Add(-time.Hour))
	root, err := in.TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		claims fakesig.Claims
		want   string
	}{{claims(), ""}, {fakesig.GitHub("mallory/edge", workflow, "refs/tags/v1.5.0", commit), "source repository"}} {
		services := httptest.NewServer(in.Handler(tt.claims))
		defer services.Close()
		service := fmt.Sprintf(`[{"url":%q,"majorApiVersion":1,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"fake"}]`, services.URL)
		config := `{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","caUrls":` + service + `,"oidcUrls":` + service + `,"rekorTlogUrls":` + service +
			`,"rekorTlogConfig":{"selector":"ANY"},"tsaConfig":{"selector":"ANY"}}`
		part := func(v string) string { return base64.RawURLEncoding.EncodeToString([]byte(v)) }
		token := part(`{"alg":"RS256","typ":"JWT"}`) + "." + part(fmt.Sprintf(`{"iss":%q,"sub":"repo:acme/edge","aud":"sigstore","exp":4102444800}`, verify.GitHubIssuer)) + "." + part("signature")
		dir := t.TempDir()
		m := manifest(t, "1.5.0")
		for file, data := range map[string][]byte{"manifest.json": m, "root.json": root, "config.json": []byte(config), "token": []byte(token)} {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), cosign, "sign-blob", "--yes", "--bundle", "manifest.sig.bundle", "--signing-config", "config.json", "--trusted-root", "root.json", "--identity-token", "token", "manifest.json")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		bundle, err := os.ReadFile(filepath.Join(dir, "manifest.sig.bundle"))
		if err != nil {
			t.Fatal(err)
		}
		rel, err := newVerifier(t, in, row).Release(m, bundle)
		switch {
		case tt.want == "" && (err != nil || !rel.OK()):
			t.Errorf("what cosign signed: %v\n%s", err, bundle)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("what cosign signed for a fork: %v", err)
		}
	}
}
