package stage

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/hostile"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/google/go-cmp/cmp"
)

func archive(t testing.TB, lines ...string) []byte {
	t.Helper()
	return hostile.Archive(lines...)
}

// unpack extracts b into a directory beside a file that must stay as it is.
func unpack(t testing.TB, b []byte, a release.Artefact) (dir string, err error) {
	t.Helper()
	base := t.TempDir()
	from := filepath.Join(base, "tarball")
	outside := filepath.Join(base, "outside")
	dir = filepath.Join(base, "to")
	for path, data := range map[string][]byte{from: b, outside: []byte("outside")} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &Stager{Config: Config{Progress: func(string, int64, int64) {}}}
	if a.Size == 0 {
		a.Size = int64(len(b))
	}
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = s.extract(t.Context(), f, dir, packing{format: release.FormatGzip, size: a.Size, unpacked: a.UnpackedSize, progress: func(int64) {}})
	if got, _ := os.ReadFile(outside); string(got) != "outside" {
		t.Errorf("a file outside was written: %q", got)
	}
	entries, _ := os.ReadDir(base)
	if len(entries) != 3 {
		t.Errorf("something was made outside: %v", entries)
	}
	return dir, err
}

func TestExtract(t *testing.T) {
	t.Parallel()
	dir, err := unpack(t, archive(t,
		"dir ./", "file ./bin/edge-agent = program", "dir bin/", "file share/a/b/c = deep",
		"link bin/agent -> edge-agent", "link share/up -> ../bin/edge-agent", "hard share/same -> bin/edge-agent",
		"file bin/empty = ",
	), release.Artefact{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		st, err := os.Lstat(path)
		rel, _ := filepath.Rel(dir, path)
		got = append(got, fmt.Sprintf("%v %s", st.Mode(), rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Set-id bits and owners are dropped; "executable" is kept.
	want := []string{
		"-rw-r--r-- " + state.DigestsFile,
		"drwxr-xr-x bin", "Lrwxrwxrwx bin/agent", "-rwxr-xr-x bin/edge-agent", "-rwxr-xr-x bin/empty",
		"drwxr-xr-x share", "drwxr-xr-x share/a", "drwxr-xr-x share/a/b", "-rwxr-xr-x share/a/b/c",
		"-rwxr-xr-x share/same", "Lrwxrwxrwx share/up",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "share/up")); string(b) != "program" {
		t.Errorf("through the link: %q, %v", b, err)
	}
}

// The size in the manifest is a limit: a tarball of exactly that size is accepted.
func TestExtractAcceptsTheSizeOfTheManifest(t *testing.T) {
	t.Parallel()
	zeros := archive(t, "file zeros = "+strings.Repeat("0", 20<<20))
	if _, err := unpack(t, zeros, release.Artefact{UnpackedSize: 20 << 20}); err != nil {
		t.Error(err)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add([]byte(strings.Repeat("file a = x\n", 2)))
	f.Add([]byte("dir a\nlink a/b -> ../a\nhard c -> a/d\nfile a/b/c = x"))
	f.Add([]byte("link a -> .\nfile a/../../outside = x"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		tarball := hostile.Archive(strings.Split(string(lines), "\n")...)
		dir, err := unpack(t, tarball, release.Artefact{UnpackedSize: 1 << 20})
		if err != nil {
			return
		}
		// Whatever was made, a walk through its links stays inside.
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if real, err := filepath.EvalSymlinks(path); err == nil && real != dir && !strings.HasPrefix(real, dir+"/") {
				t.Errorf("%s points to %s", path, real)
			}
			return nil
		})
	})
}

// The content of a file with many names is read again once, whichever of them a link names.
func TestManyNamesOfAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	x := &extractor{root: root}
	if x.record, err = newDigests(fsutil.Disk{}, dir); err != nil {
		t.Fatal(err)
	}
	if err := x.recordAgain("a", "b"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.recordAgain("a", "c"), x.recordAgain("b", "d"), x.recordAgain("d", "e"), x.record.close(nil)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, state.DigestsFile))
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, name := range []string{"b", "c", "d", "e"} {
		fmt.Fprintf(&want, "%x *%s\n#exec %s\n", sha256.Sum256([]byte("#!/bin/sh\n")), name, name)
	}
	if string(got) != want.String() {
		t.Errorf("got %s, want %s", got, want.String())
	}
}
