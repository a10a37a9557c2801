package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/release"
)

func sigstore(t *testing.T) (*fakesig.Instance, []byte) {
	t.Helper()
	i := fakesig.New(time.Now().Add(-time.Hour))
	b, err := i.TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	return i, b
}

func dirOf(files map[string][]byte) fstest.MapFS {
	fs := fstest.MapFS{}
	for name, b := range files {
		fs[name] = &fstest.MapFile{Data: b}
	}
	return fs
}

func TestRenew(t *testing.T) {
	t.Parallel()
	_, old := sigstore(t)
	_, fresh := sigstore(t)
	a := anchor{root: fakesig.TUFRoot(1, "abc", "t", "ab"), targets: 5}
	root2 := fakesig.TUFRoot(2, "cde", "u", "abcde") // rotates "a" and "b" out, and the targets key
	root3 := fakesig.TUFRoot(3, "cdf", "u", "cdef")
	kept, err := a.renew(dirOf(map[string][]byte{"2.root.json": root2, targetsFile: fakesig.TUFTargets(7, fresh, "u"), trustedRootFile: fresh}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if kept.RootVersion != 2 || kept.TargetsVersion != 7 || string(kept.TrustedRoot()) != string(fresh) || len(kept.Files) != 3 {
		t.Errorf("%d %d %d files", kept.RootVersion, kept.TargetsVersion, len(kept.Files))
	}
	none := Renewal{}
	for name, tt := range map[string]struct {
		kept  Renewal
		files map[string][]byte
		want  string // "" means that it is accepted
	}{
		"the same root, newer targets":    {none, map[string][]byte{targetsFile: fakesig.TUFTargets(6, fresh, "t"), trustedRootFile: fresh}, ""},
		"the version that is compiled in": {none, map[string][]byte{targetsFile: fakesig.TUFTargets(5, old, "t"), trustedRootFile: old}, ""},
		"older than what is compiled in":  {none, map[string][]byte{targetsFile: fakesig.TUFTargets(4, old, "t"), trustedRootFile: old}, "older than 5"},
		"two rotations at once":           {none, map[string][]byte{"2.root.json": root2, "3.root.json": root3, targetsFile: fakesig.TUFTargets(9, fresh, "u"), trustedRootFile: fresh}, ""},
		"the second rotation later":       {kept, map[string][]byte{"3.root.json": root3, targetsFile: fakesig.TUFTargets(7, fresh, "u"), trustedRootFile: fresh}, ""},
		"the same again":                  {kept, kept.Files, ""},
		"going back to older targets":     {kept, map[string][]byte{targetsFile: fakesig.TUFTargets(6, old, "u"), trustedRootFile: old}, "older than 7"},
		"a targets key that was revoked":  {kept, map[string][]byte{targetsFile: fakesig.TUFTargets(99, old, "t"), trustedRootFile: old}, "not signed by the keys of the TUF root 2"},
		"a root that the old keys did not sign": {none, map[string][]byte{"2.root.json": fakesig.TUFRoot(2, "xyz", "u", "xyz"),
			targetsFile: fakesig.TUFTargets(9, fresh, "u"), trustedRootFile: fresh}, "not signed by the keys of version 1"},
		"a root that one old key signed": {none, map[string][]byte{"2.root.json": fakesig.TUFRoot(2, "cde", "u", "ade"),
			targetsFile: fakesig.TUFTargets(9, fresh, "u"), trustedRootFile: fresh}, "not signed by the keys of version 1"},
		"a root that its own keys did not sign": {none, map[string][]byte{"2.root.json": fakesig.TUFRoot(2, "def", "u", "abc"),
			targetsFile: fakesig.TUFTargets(9, fresh, "u"), trustedRootFile: fresh}, "not signed by its own keys"},
		"a root under another's name": {none, map[string][]byte{"2.root.json": root3, targetsFile: fakesig.TUFTargets(9, fresh, "u"), trustedRootFile: fresh}, "says that it is version 3"},
		"a root is left out":          {none, map[string][]byte{"3.root.json": root3, targetsFile: fakesig.TUFTargets(9, fresh, "u"), trustedRootFile: fresh}, "not signed by the keys of the TUF root 1"},
		"another trusted root":        {none, map[string][]byte{targetsFile: fakesig.TUFTargets(9, fresh, "t"), trustedRootFile: old}, "is not the one"},
		"a trusted root that is none": {none, map[string][]byte{targetsFile: fakesig.TUFTargets(9, []byte("{}"), "t"), trustedRootFile: []byte("{}")}, "trusted root"},
		"no targets":                  {none, map[string][]byte{trustedRootFile: fresh}, "does not exist"},
		"no trusted root":             {none, map[string][]byte{targetsFile: fakesig.TUFTargets(9, fresh, "t")}, "does not exist"},
		"a root as targets":           {none, map[string][]byte{targetsFile: root2, trustedRootFile: fresh}, targetsFile},
		"garbage":                     {none, map[string][]byte{"2.root.json": []byte("\x00"), targetsFile: nil, trustedRootFile: nil}, "2.root.json"},
		"megabytes":                   {none, map[string][]byte{targetsFile: make([]byte, 10<<20), trustedRootFile: fresh}, "more than"},
		"nothing":                     {none, nil, "does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := a.renew(dirOf(tt.files), dirOf(tt.kept.Files))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			if err != nil {
				if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "%!") {
					t.Errorf("not fit for a log: %q", err)
				}
				return
			}
			// What is kept proves itself, and is where the next renewal starts.
			again, err := a.known(dirOf(r.Files))
			if err != nil || again.RootVersion != r.RootVersion || again.TargetsVersion != r.TargetsVersion {
				t.Errorf("kept: %v, %d %d", err, again.RootVersion, again.TargetsVersion)
			}
		})
	}
}

// A renewed root replaces the old one: a log that it no longer names is no
// longer trusted.
func TestARenewedRootReplaces(t *testing.T) {
	t.Parallel()
	before, old := sigstore(t)
	after, fresh := sigstore(t)
	a := anchor{root: fakesig.TUFRoot(1, "a", "t", "a")}
	r, err := a.renew(dirOf(map[string][]byte{targetsFile: fakesig.TUFTargets(1, fresh, "t"), trustedRootFile: fresh}), nil)
	if err != nil {
		t.Fatal(err)
	}
	claims := fakesig.GitHub("acme/edge", ".github/workflows/release.yml", "refs/tags/v1.5.0", strings.Repeat("0", 40))
	rows := []Signer{{Issuer: claims.Issuer, Repository: claims.SourceRepositoryURI, Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*"}}
	m := fmt.Appendf(nil, `{"version":"1.5.0","device_type":"edge","channel":"stable","released_at":"2026-01-01T00:00:00Z","sequence":1,
		"artefacts":[{"arch":"x86_64-linux","variant":"default","url":"https://github.com/acme/edge/x.tar.gz","sha256":%q}]}`, strings.Repeat("0", 64))
	for name, tt := range map[string]struct {
		root   []byte
		signer *fakesig.Instance
		want   release.Code
	}{
		"before, old log": {old, before, ""}, "before, new log": {old, after, release.RekorInvalid},
		"after, old log": {r.TrustedRoot(), before, release.RekorInvalid}, "after, new log": {r.TrustedRoot(), after, ""},
	} {
		v, err := New(tt.root, rows)
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := tt.signer.Sign(m, claims, time.Now(), fakesig.Opt{})
		if err != nil {
			t.Fatal(err)
		}
		var coded *release.Error
		if _, err = v.Release(m, bundle); (err == nil) != (tt.want == "") || err != nil && (!errors.As(err, &coded) || coded.Code != tt.want) {
			t.Errorf("%s: %v, want code %q", name, err, tt.want)
		}
	}
}

// The TUF root that is compiled in is the documented one.
func TestEmbeddedTUFRoot(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("trust/root.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("trust/README.md")
	sum := sha256.Sum256(b)
	if err != nil || !strings.Contains(string(doc), hex.EncodeToString(sum[:])) {
		t.Errorf("README.md does not name the digest %x (%v)", sum, err)
	}
	r, err := anchor{root: b, targets: 14}.known(nil)
	if err != nil || r.RootVersion != 14 {
		t.Errorf("version %d, %v", r.RootVersion, err)
	}
}

func FuzzRenew(f *testing.F) {
	root, err := os.ReadFile("trust/root.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(root, []byte(`{"signed":{"_type":"targets"}}`))
	f.Fuzz(func(t *testing.T, next, targets []byte) {
		a := anchor{root: root}
		if _, err := a.renew(dirOf(map[string][]byte{"15.root.json": next, targetsFile: targets, trustedRootFile: []byte("{}")}), nil); err == nil {
			t.Error("something was trusted")
		}
	})
}
