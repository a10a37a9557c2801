package stage

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// A repository was renamed, and the allowlist has both names. A release is staged from
// whichever name has it, in any order of the rows, also if somebody else took the other
// name meanwhile.
func TestARenamedRepository(t *testing.T) {
	t.Parallel()
	const before, after = "acme/box", "acme/edge-box"
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ntest \"$1\" = version\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	publish := func(repository, version string, fault fakerelease.Fault) {
		t.Helper()
		if _, err := fakerelease.Publish(dir, fakerelease.Options{Repository: repository, Version: version, Binary: program, Fault: fault}); err != nil {
			t.Fatal(err)
		}
	}
	publish(before, "1.0.0", "")
	publish(after, "1.1.0", "")
	publish(before, "1.2.0", fakerelease.WrongIdentity) // mallory has the old name now
	publish(after, "1.2.0", "")
	publish(before, "1.3.0", fakerelease.BadSignature)
	publish(after, "1.3.0", "")
	publish(before, "1.4.0", fakerelease.WrongIdentity)
	publish(after, "1.4.0", fakerelease.WrongIdentity)
	publish(before, "1.5.0", "")
	publish(after, "1.5.0", "")

	var mu sync.Mutex
	var asked []string
	files := fakerelease.Handler(dir)
	host := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		switch {
		case strings.HasPrefix(r.URL.Path, "/"+before+"/") && strings.HasSuffix(r.URL.Path, "/v1.6.0/manifest.json"):
			fmt.Fprint(w, `{"version":"1.6.0","artefacts":[],"more":"`+strings.Repeat("x", release.MaxManifest)+`"}`)
			return
		case strings.Contains(r.URL.Path, "/v1.6.0/"): // the release that is under the new name
			r.URL.Path = strings.ReplaceAll(r.URL.Path, "1.6.0", "1.5.0")
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(host.Close)
	made, err := fakerelease.NewTrust(dir, host.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(fakerelease.TrustDir(dir), "trusted_root.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, reverse := range []bool{false, true} {
		rows := made.Signers()
		if reverse {
			slices.Reverse(rows)
		}
		x := made
		if x.Verifier, err = verify.New(root, rows); err != nil {
			t.Fatal(err)
		}
		for version, refuse := range map[string]release.Code{
			"1.0.0": "", "1.1.0": "", "1.2.0": "", "1.3.0": "", "1.5.0": "", "1.6.0": "",
			"1.4.0": release.IdentityNotAllowed, "1.9.0": release.NetworkError,
		} {
			l, err := state.At(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			s, err := New(Config{Layout: l, Binary: "edge-agent", Trust: x, Tries: 2, FirstPause: time.Millisecond, MaxPause: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			src := s.Host(release.MustVersion(version))
			rel, err := s.Fetch(t.Context(), src)
			if refuse != "" {
				if code(err) != refuse {
					t.Errorf("%s, rows reversed %v: %v, want %s", version, reverse, err, refuse)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, rows reversed %v: %v", version, reverse, err)
				continue
			}
			if _, err := s.Stage(t.Context(), src, rel, rel.Manifest().Artefacts[0], func() {}); err != nil {
				t.Errorf("%s, rows reversed %v: %v", version, reverse, err)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.ContainsFunc(asked, func(p string) bool { return strings.HasPrefix(p, "/"+before+"/") }) || !slices.ContainsFunc(asked, func(p string) bool { return strings.HasPrefix(p, "/"+after+"/") }) {
		t.Errorf("asked %q", asked)
	}
}

// The manifest of one name may give URLs below the other: a workflow may not know yet that
// its repository was renamed. A URL elsewhere is refused.
func TestTheURLsOfARenamedRepository(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	x := s.Trust.(trust)
	root, err := os.ReadFile(filepath.Join(fakerelease.TrustDir(published.dir), "trusted_root.json"))
	if err != nil {
		t.Fatal(err)
	}
	other := x.Signers()[0]
	other.Repository = "https://github.com/acme/other"
	if x.Verifier, err = verify.New(root, []verify.Signer{other, x.Signers()[0]}); err != nil {
		t.Fatal(err)
	}
	s.Trust = x
	rel, a := fetch(t, s, "1.0.0")
	for url, want := range map[string]release.Code{
		"https://github.com/acme/edge/releases/download/v1.0.0/x.tar.gz":     "",
		"https://github.com/acme/other/releases/download/v1.0.0/x.tar.gz":    "",
		"https://github.com/acme/other/releases/download/v1.1.0/x.tar.gz":    release.URLInvalid,
		"https://github.com/mallory/edge/releases/download/v1.0.0/x.tar.gz":  release.URLInvalid,
		"https://github.com/acme/other/releases/download/v1.0.0/../x.tar.gz": release.URLInvalid,
	} {
		a.URL = url
		name, err := s.fileOf(rel, a)
		if want == "" && (err != nil || name != "x.tar.gz") || want != "" && code(err) != want {
			t.Errorf("%s: %q, %v", url, name, err)
		}
	}
}
