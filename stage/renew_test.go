package stage

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// If the node's trust root does not list the release's log, the node adopts the trust
// root beside the release, provided that its files prove it. Otherwise the release is
// refused.
func TestATrustRootBesideTheRelease(t *testing.T) {
	t.Parallel()
	unproven := errors.New("not signed by the keys")
	for name, tt := range map[string]struct {
		files  bool // beside the release
		proof  error
		refuse string
	}{
		"proven":     {files: true},
		"unproven":   {files: true, proof: unproven, refuse: "not accepted: " + unproven.Error()},
		"not there":  {refuse: "no entry of a log"},
		"not a file": {files: true, proof: fs.ErrNotExist, refuse: "no entry of a log"},
	} {
		s := setup(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tt.files && strings.HasSuffix(r.URL.Path, "/targets.json") {
					w.Write([]byte("targets"))
					return
				}
				h.ServeHTTP(w, r)
			})
		})
		right := s.Trust.(trust)
		root, err := fakesig.New(time.Now().Add(-time.Hour)).TrustedRoot()
		if err != nil {
			t.Fatal(err)
		}
		old := right
		if old.Verifier, err = verify.New(root, right.Signers()); err != nil {
			t.Fatal(err)
		}
		s.Trust = old
		asked := 0
		s.Renew = func(_ context.Context, beside fs.FS) (Trust, error) {
			asked++
			if _, err := fs.ReadFile(beside, "15.root.json"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: a file that is not there: %v", name, err)
			}
			f, err := beside.Open("targets.json")
			if err != nil {
				return nil, err
			}
			defer f.Close()
			if tt.proof != nil {
				return nil, tt.proof
			}
			return right, nil
		}
		rel, err := s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0")))
		var coded *release.Error
		switch {
		case tt.refuse == "" && (err != nil || !rel.OK()):
			t.Errorf("%s: %v", name, err)
		case tt.refuse != "" && (!errors.As(err, &coded) || coded.Code != release.RekorInvalid || !strings.Contains(err.Error(), tt.refuse)):
			t.Errorf("%s: %v, want %q", name, err, tt.refuse)
		}
		if asked != 1 {
			t.Errorf("%s: asked %d times", name, asked)
		}
	}

	// From a stick it is the same.
	s := setup(t, nil)
	dir := filepath.Join(published.dir, "www", "acme", "edge", "releases", "download", "v1.0.0")
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, "targets.json"), []byte("targets"), 0o644); err != nil {
		t.Fatal(err)
	}
	source, err := OpenSource(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	right := s.Trust.(trust)
	root, err := fakesig.New(time.Now().Add(-time.Hour)).TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	old := right
	if old.Verifier, err = verify.New(root, right.Signers()); err != nil {
		t.Fatal(err)
	}
	s.Trust = old
	s.Renew = func(_ context.Context, beside fs.FS) (Trust, error) {
		_, err := beside.Open("targets.json")
		return right, err
	}
	if rel, err := s.Fetch(t.Context(), source); err != nil || !rel.OK() {
		t.Errorf("from a directory: %v", err)
	}
}
