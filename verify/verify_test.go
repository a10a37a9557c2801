package verify_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

const (
	repo     = "acme/edge"
	workflow = ".github/workflows/release.yml"
	commit   = "0123456789abcdef0123456789abcdef01234567"
)

var row = verify.Signer{
	Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/edge", Workflow: workflow, Ref: "refs/tags/v*",
	RepositoryID: "123456789", OwnerID: "987654",
}

// Nothing here asks the clock: TestClocks runs these tests at other times.
var (
	instanceStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	signedAt      = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
)

// instance is shared: making the keys of one takes a while.
var instance = sync.OnceValue(func() *fakesig.Instance { return fakesig.New(instanceStart) })
var foreign = sync.OnceValue(func() *fakesig.Instance { return fakesig.New(instanceStart) })

func manifest(t testing.TB, version string) []byte {
	t.Helper()
	m := release.Manifest{
		Version: release.MustVersion(version), DeviceType: "edge", Channel: "stable", Sequence: 1,
		Artefacts: []release.Artefact{{Arch: "x86_64-linux", Variant: "default", SHA256: strings.Repeat("0", 64),
			URL: "https://github.com/acme/edge/releases/download/v" + version + "/edge.tar.gz"}},
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newVerifier(t testing.TB, in *fakesig.Instance, rows ...verify.Signer) *verify.Verifier {
	t.Helper()
	root, err := in.TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	v, err := verify.New(root, rows)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func claims() fakesig.Claims { return fakesig.GitHub(repo, workflow, "refs/tags/v1.5.0", commit) }

// What is signed and allowed, and yet no manifest, is refused as such.
func TestSignedNonsense(t *testing.T) {
	t.Parallel()
	m := []byte(`{"version":"1.5.0"}`)
	b, err := instance().Sign(m, claims(), signedAt, fakesig.Opt{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = newVerifier(t, instance(), row).Release(m, b)
	var coded *release.Error
	if !errors.As(err, &coded) || coded.Code != release.ManifestInvalid {
		t.Errorf("got %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	root, err := instance().TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	with := func(f func(*verify.Signer)) []verify.Signer {
		r := row
		f(&r)
		return []verify.Signer{r}
	}
	type S = verify.Signer
	for name, c := range map[string]struct {
		root []byte
		rows []verify.Signer
		want string
	}{
		"no rows":                 {root, nil, "empty"},
		"no issuer":               {root, with(func(s *S) { s.Issuer = "" }), "issuer"},
		"no repository":           {root, with(func(s *S) { s.Repository = "" }), "repository"},
		"repository with a slash": {root, with(func(s *S) { s.Repository += "/" }), "repository"},
		"http repository":         {root, with(func(s *S) { s.Repository = "http://github.com/a/b" }), "repository"},
		"no workflow":             {root, with(func(s *S) { s.Workflow = "" }), "workflow"},
		"no ref":                  {root, with(func(s *S) { s.Ref = "" }), "ref"},
		"star alone":              {root, with(func(s *S) { s.Ref = "*" }), "ref"},
		"star in the middle":      {root, with(func(s *S) { s.Ref = "refs/*/v*" }), "ref"},
		"id that is no number":    {root, with(func(s *S) { s.OwnerID = "acme" }), "owner_id"},
		"half a reusable":         {root, with(func(s *S) { s.SignerRef = "refs/heads/main" }), "go together"},
		"root that is no JSON":    {[]byte("x"), []verify.Signer{row}, "trusted root"},
		"huge root":               {make([]byte, verify.MaxRoot+1), []verify.Signer{row}, "more than"},
	} {
		if _, err := verify.New(c.root, c.rows); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

// The embedded root is the one that trust/README.md documents.
func TestEmbeddedRoot(t *testing.T) {
	t.Parallel()
	const want = "6494e21ea73fa7ee769f85f57d5a3e6a08725eae1e38c755fc3517c9e6bc0b66"
	b, err := os.ReadFile("trust/trusted_root.json")
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want {
		t.Errorf("digest is %x", sum)
	}
	doc, err := os.ReadFile("trust/README.md")
	if err != nil || !strings.Contains(string(doc), want) {
		t.Errorf("README.md does not name the digest (%v)", err)
	}
}

func BenchmarkRelease(b *testing.B) {
	m := manifest(b, "1.5.0")
	for name, opt := range map[string]fakesig.Opt{"rekor=v1": {}, "rekor=v2": {RekorV2: true}} {
		bundle, err := instance().Sign(m, claims(), signedAt, opt)
		if err != nil {
			b.Fatal(err)
		}
		v := newVerifier(b, instance(), row)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Release(m, bundle); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
