package fakerelease_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

func publish(t *testing.T, dir string, o fakerelease.Options) fakerelease.Published {
	t.Helper()
	o.Binary = filepath.Join(dir, "program")
	if err := os.WriteFile(o.Binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := fakerelease.Publish(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTarballsAreReproducible(t *testing.T) {
	t.Parallel()
	a := publish(t, t.TempDir(), fakerelease.Options{Version: "1.0.0", PadBytes: 1000})
	b := publish(t, t.TempDir(), fakerelease.Options{Version: "1.0.0", PadBytes: 1000})
	if a.SHA256 != b.SHA256 {
		t.Errorf("%s and %s", a.SHA256, b.SHA256)
	}
}

// As many files have the bytes of one.
func TestPaddingInManyFiles(t *testing.T) {
	t.Parallel()
	one := publish(t, t.TempDir(), fakerelease.Options{Version: "1.0.0", PadBytes: 1000})
	many := publish(t, t.TempDir(), fakerelease.Options{Version: "1.0.0", PadBytes: 1000, PadFiles: 301})
	if many.Unpacked != one.Unpacked || many.SHA256 == one.SHA256 {
		t.Errorf("%d bytes with the SHA-256 %s; in one file, %d with %s", many.Unpacked, many.SHA256, one.Unpacked, one.SHA256)
	}
}

func TestSequencesRise(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for want, version := range []string{"1.0.0", "1.2.0", "1.1.0"} {
		if p := publish(t, dir, fakerelease.Options{Version: version}); p.Sequence != uint64(want+1) {
			t.Errorf("%s has sequence %d", version, p.Sequence)
		}
	}
	list, err := fakerelease.Index(dir, "edge", "stable")
	if err != nil || len(list) != 3 || list[0].Version != "1.2.0" || list[2].Version != "1.0.0" {
		t.Errorf("got %+v, %v", list, err)
	}
	if list, _ := fakerelease.Index(dir, "relay", ""); len(list) != 0 {
		t.Errorf("of another device type: %+v", list)
	}
}

func TestHandlerServesReleasesOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := publish(t, dir, fakerelease.Options{Version: "1.0.0"})
	base := "/acme/edge/releases/download/v1.0.0/"
	get := func(method, path, rng string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/", nil)
		r.URL.Path = path
		if rng != "" {
			r.Header.Set("Range", rng)
		}
		w := httptest.NewRecorder()
		fakerelease.Handler(dir).ServeHTTP(w, r)
		return w
	}
	whole := get("GET", base+p.Tarball, "")
	if whole.Code != 200 || int64(whole.Body.Len()) != p.Size || whole.Header().Get("ETag") == "" {
		t.Errorf("%d, %d bytes", whole.Code, whole.Body.Len())
	}
	if part := get("GET", base+p.Tarball, "bytes=10-"); part.Code != 206 || !bytes.Equal(part.Body.Bytes(), whole.Body.Bytes()[10:]) {
		t.Errorf("a range: %d, %d bytes", part.Code, part.Body.Len())
	}
	for _, path := range []string{"/", base, "/acme", "/../sigstore", "/../sigstore/../program", base + "../../../../../../../program", "/.x", base + ".hidden", base + "none"} {
		if w := get("GET", path, ""); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := get("POST", base+p.Tarball, ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}
