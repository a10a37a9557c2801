package verify_test

import (
	"bytes"
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

// instance is shared: making the keys of one takes a while.
var instance = sync.OnceValue(func() *fakesig.Instance { return fakesig.New(time.Now().Add(-time.Hour)) })
var foreign = sync.OnceValue(func() *fakesig.Instance { return fakesig.New(time.Now().Add(-time.Hour)) })

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

// TestRelease changes one thing at a time in a release that is right.
func TestRelease(t *testing.T) {
	t.Parallel()
	const ok = release.Code("")
	sharedRow := row
	sharedRow.SignerWorkflow, sharedRow.SignerRef = "https://github.com/acme/shared/.github/workflows/sign.yml", "refs/heads/main"
	reusable := claims().Reusable("acme/shared", ".github/workflows/sign.yml", "refs/heads/main", commit)
	with := func(f func(*fakesig.Claims)) fakesig.Claims {
		c := claims()
		f(&c)
		return c
	}
	type C = fakesig.Claims
	for _, c := range []struct {
		name   string
		claims fakesig.Claims
		opt    fakesig.Opt
		by     *fakesig.Instance
		rows   []verify.Signer
		edit   func(manifest, bundle []byte) ([]byte, []byte)
		code   release.Code
		text   string
	}{
		{name: "rekor v1", claims: claims()},
		{name: "rekor v1 with a timestamp too", claims: claims(), opt: fakesig.Opt{TSA: true}},
		{name: "rekor v2", claims: claims(), opt: fakesig.Opt{RekorV2: true}},
		{name: "the second row", claims: claims(), rows: []verify.Signer{{Issuer: "https://x", Repository: "https://x/y", Workflow: "z", Ref: "refs/tags/v*"}, row}},
		{name: "a reusable workflow", claims: reusable, rows: []verify.Signer{sharedRow}},

		{name: "no log entry", claims: claims(), opt: fakesig.Opt{NoLog: true}, code: release.RekorInvalid, text: "transparency log"},
		{name: "bad inclusion proof", claims: claims(), opt: fakesig.Opt{BadProof: true}, code: release.RekorInvalid, text: "transparency log"},
		{name: "bad inclusion proof, v2", claims: claims(), opt: fakesig.Opt{BadProof: true, RekorV2: true}, code: release.RekorInvalid, text: "transparency log"},
		{name: "no time", claims: claims(), opt: fakesig.Opt{NoSET: true}, code: release.RekorInvalid, text: "time of signing"},
		{name: "no time, v2", claims: claims(), opt: fakesig.Opt{RekorV2: true, NoTSA: true}, code: release.RekorInvalid, text: "time of signing"},
		{name: "foreign timestamp authority", claims: claims(), opt: fakesig.Opt{RekorV2: true, TSAFrom: foreign()}, code: release.RekorInvalid, text: "time of signing"},
		{name: "foreign instance", claims: claims(), by: foreign(), code: release.RekorInvalid, text: "transparency log"},
		{name: "time outside the certificate", claims: claims(), opt: fakesig.Opt{LogDelay: time.Hour}, code: release.RekorInvalid, text: "outside certificate validity"},
		{name: "no SCT", claims: claims(), opt: fakesig.Opt{NoSCT: true}, code: release.SignatureInvalid, text: "certificate"},
		{name: "bad signature", claims: claims(), opt: fakesig.Opt{BadSignature: true}, code: release.SignatureInvalid, text: "signature"},
		{name: "bundle v0.1", claims: claims(), opt: fakesig.Opt{NoProof: true}, code: release.SignatureInvalid, text: "v0.3 is required"},
		{name: "tampered manifest", claims: claims(), code: release.SignatureInvalid, text: "signature",
			edit: func(m, b []byte) ([]byte, []byte) {
				return bytes.Replace(m, []byte(`"sequence":1`), []byte(`"sequence":2`), 1), b
			}},
		{name: "legacy bundle", claims: claims(), code: release.SignatureInvalid, text: "legacy",
			edit: func(m, b []byte) ([]byte, []byte) {
				l, err := fakesig.Legacy(b)
				if err != nil {
					panic(err)
				}
				return m, l
			}},
		{name: "empty bundle", claims: claims(), code: release.SignatureInvalid, text: "not a Sigstore bundle",
			edit: func(m, b []byte) ([]byte, []byte) { return m, nil }},
		{name: "huge bundle", claims: claims(), code: release.SignatureInvalid, text: "more than",
			edit: func(m, b []byte) ([]byte, []byte) { return m, append(b, make([]byte, verify.MaxBundle)...) }},
		{name: "huge manifest", claims: claims(), code: release.ManifestInvalid, text: "more than",
			edit: func(m, b []byte) ([]byte, []byte) { return append(m, make([]byte, release.MaxManifest)...), b }},

		{name: "a fork", claims: fakesig.GitHub("mallory/edge", workflow, "refs/tags/v1.5.0", commit), code: release.IdentityNotAllowed, text: "source repository"},
		{name: "repository with a suffix", claims: fakesig.GitHub("acme/edge-evil", workflow, "refs/tags/v1.5.0", commit), code: release.IdentityNotAllowed, text: "source repository"},
		{name: "another workflow", claims: fakesig.GitHub(repo, ".github/workflows/ci.yml", "refs/tags/v1.5.0", commit), code: release.IdentityNotAllowed, text: "subject"},
		{name: "workflow with a prefix", claims: fakesig.GitHub(repo, "x/"+workflow, "refs/tags/v1.5.0", commit), code: release.IdentityNotAllowed, text: "subject"},
		{name: "a branch", claims: fakesig.GitHub(repo, workflow, "refs/heads/v1.5.0", commit), code: release.IdentityNotAllowed, text: "source ref"},
		{name: "a tag with a slash", claims: fakesig.GitHub(repo, workflow, "refs/tags/v1.5.0/x", commit), code: release.IdentityNotAllowed, text: "source ref"},
		{name: "another tag", claims: fakesig.GitHub(repo, workflow, "refs/tags/v1.5.1", commit), code: release.IdentityNotAllowed, text: "version 1.5.0"},
		{name: "repository made again", claims: with(func(c *C) { c.SourceRepositoryID = "1" }), code: release.IdentityNotAllowed, text: "source repository id"},
		{name: "owner made again", claims: with(func(c *C) { c.SourceRepositoryOwnerID = "1" }), code: release.IdentityNotAllowed, text: "owner id"},
		{name: "self-hosted runner", claims: with(func(c *C) { c.RunnerEnvironment = "self-hosted" }), code: release.IdentityNotAllowed, text: "runner"},
		{name: "another issuer", claims: with(func(c *C) { c.Issuer = "https://gitlab.com" }), code: release.IdentityNotAllowed, text: "issuer"},
		{name: "another build config", claims: with(func(c *C) { c.BuildConfigURI += "x" }), code: release.IdentityNotAllowed, text: "build config"},
		{name: "another build signer", claims: with(func(c *C) { c.BuildSignerURI += "x" }), code: release.IdentityNotAllowed, text: "build signer"},
		{name: "no repository claim", claims: with(func(c *C) { c.SourceRepositoryURI = "" }), code: release.IdentityNotAllowed, text: "has no source repository"},
		{name: "a reusable workflow that no row names", claims: reusable, code: release.IdentityNotAllowed, text: "subject"},
		{name: "another repository's run of our reusable workflow",
			claims: fakesig.GitHub("mallory/edge", workflow, "refs/tags/v1.5.0", commit).Reusable("acme/shared", ".github/workflows/sign.yml", "refs/heads/main", commit),
			rows:   []verify.Signer{sharedRow}, code: release.IdentityNotAllowed, text: "source repository"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			by := c.by
			if by == nil {
				by = instance()
			}
			rows := c.rows
			if rows == nil {
				rows = []verify.Signer{row}
			}
			m := manifest(t, "1.5.0")
			b, err := by.Sign(m, c.claims, time.Now(), c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if c.edit != nil {
				m, b = c.edit(m, b)
			}
			rel, err := newVerifier(t, instance(), rows...).Release(m, b)
			if c.code == ok {
				if err != nil {
					t.Fatal(err)
				}
				if !rel.OK() || rel.Manifest().Version.String() != "1.5.0" || rel.Signature().Commit != commit || rel.Signature().Time.IsZero() {
					t.Errorf("got %+v", rel)
				}
				return
			}
			var coded *release.Error
			if !errors.As(err, &coded) {
				t.Fatalf("error %v has no code", err)
			}
			if coded.Code != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %s: %v\nwant %s with %q", coded.Code, err, c.code, c.text)
			}
			if strings.ContainsAny(err.Error(), "\n\r") || strings.Contains(err.Error(), "%!") {
				t.Errorf("not fit for a log: %q", err)
			}
			if rel.OK() {
				t.Error("a release was made all the same")
			}
		})
	}
}

// What is signed and allowed, and yet no manifest, is refused as such.
func TestSignedNonsense(t *testing.T) {
	t.Parallel()
	m := []byte(`{"version":"1.5.0"}`)
	b, err := instance().Sign(m, claims(), time.Now(), fakesig.Opt{})
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
		bundle, err := instance().Sign(m, claims(), time.Now(), opt)
		if err != nil {
			b.Fatal(err)
		}
		v := newVerifier(b, instance(), row)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := v.Release(m, bundle); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
