package stage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/release"
	"github.com/google/go-cmp/cmp"
)

// entry is one line of an archive: TYPE NAME [-> TARGET] [= BODY].
func entry(line string) (*tar.Header, string) {
	kind, rest, _ := strings.Cut(line, " ")
	rest, body, _ := strings.Cut(rest, " = ")
	name, target, _ := strings.Cut(rest, " -> ")
	h := &tar.Header{Name: name, Linkname: target, Mode: 0o6755, Size: int64(len(body)), Uid: 1234}
	h.Typeflag = map[string]byte{
		"file": tar.TypeReg, "dir": tar.TypeDir, "link": tar.TypeSymlink, "hard": tar.TypeLink,
		"char": tar.TypeChar, "block": tar.TypeBlock, "fifo": tar.TypeFifo,
	}[kind]
	return h, body
}

func archive(t testing.TB, lines ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	w := tar.NewWriter(gz)
	for _, line := range lines {
		h, body := entry(line)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	gz.Close()
	return buf.Bytes()
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
	err = s.extract(t.Context(), from, dir, a)
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

func TestExtractRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want  string
		lines []string
	}{
		{"empty", nil},
		{"..", []string{"file ../outside = x"}},
		{"..", []string{"file a/../../outside = x"}},
		{"..", []string{"dir .."}},
		{"/", []string{"file /etc/passwd = x"}},
		{"leaves the archive", []string{"link up -> ../outside"}},
		{"absolute", []string{"link up -> /etc/passwd"}},
		{"leaves the archive", []string{"link a/up -> ../../outside"}},
		{"after another element", []string{"link up -> x/../../outside"}},
		{"lies below", []string{"link a -> .", "file a/b = x"}},
		{"lies below", []string{"dir d", "link d/l -> ../d", "file d/l/x = x"}},
		{"lies below", []string{"file a = x", "file a/b = x"}},
		{"second entry", []string{"file a = x", "file a = y"}},
		{"second entry", []string{"link a -> b", "file a = y"}},
		{"second entry", []string{"dir a", "file ./a = y"}},
		{"hard link", []string{"hard a -> ../outside"}},
		{"hard link", []string{"hard a -> later", "file later = x"}},
		{"hard link", []string{"link l -> f", "hard a -> l"}},
		{"only files, directories and links", []string{"char null"}},
		{"only files, directories and links", []string{"block sda"}},
		{"only files, directories and links", []string{"fifo pipe"}},
		{"reserved", []string{"file " + Marker + " = {}"}},
		{"elements", []string{"file " + strings.Repeat("a/", maxDepth) + "x = x"}},
		{"bytes", []string{"file " + strings.Repeat("a", maxPath+1) + " = x"}},
		{"UTF-8", []string{"file a\xff = x"}},
		{"holds", []string{"file a\nb = x"}},
	} {
		t.Run(strings.Join(tt.lines, ";")[:min(40, len(strings.Join(tt.lines, ";")))], func(t *testing.T) {
			t.Parallel()
			_, err := unpack(t, archive(t, tt.lines...), release.Artefact{})
			if code(err) != release.ExtractFailed || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q: got %s: %v, want %q", tt.lines, code(err), err, tt.want)
			}
		})
	}
}

func TestExtractBoundsBytes(t *testing.T) {
	t.Parallel()
	zeros := archive(t, "file zeros = "+strings.Repeat("0", 20<<20)) // unpacks to 1000 x its size
	for name, a := range map[string]release.Artefact{
		"what the manifest says": {UnpackedSize: 1000},
		"the ratio":              {},
	} {
		if _, err := unpack(t, zeros, a); code(err) != release.ExtractFailed || !strings.Contains(err.Error(), "may unpack to") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := unpack(t, zeros, release.Artefact{UnpackedSize: 20 << 20}); err != nil {
		t.Errorf("exactly as much as the manifest says: %v", err)
	}
}

func TestExtractNeedsAllOfTheStream(t *testing.T) {
	t.Parallel()
	good := archive(t, "file a = "+strings.Repeat("some text ", 1000))
	for name, b := range map[string][]byte{
		"nothing":         {},
		"not gzip":        []byte("hello, world"),
		"cut":             good[:len(good)/2],
		"without its CRC": good[:len(good)-4],
		"a wrong CRC":     append(bytes.Clone(good[:len(good)-8]), make([]byte, 8)...),
	} {
		if _, err := unpack(t, b, release.Artefact{Size: 1 << 20}); code(err) != release.ExtractFailed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzExtract(f *testing.F) {
	f.Add([]byte(strings.Repeat("file a = x\n", 2)))
	f.Add([]byte("dir a\nlink a/b -> ../a\nhard c -> a/d\nfile a/b/c = x"))
	f.Add([]byte("link a -> .\nfile a/../../outside = x"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		var buf bytes.Buffer
		gz, _ := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
		w := tar.NewWriter(gz)
		for line := range strings.SplitSeq(string(lines), "\n") {
			h, body := entry(line)
			if w.WriteHeader(h) != nil {
				continue
			}
			w.Write([]byte(body))
		}
		w.Close()
		gz.Close()
		dir, err := unpack(t, buf.Bytes(), release.Artefact{UnpackedSize: 1 << 20})
		if err != nil {
			return
		}
		// Whatever was made, a walk through its links stays inside.
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if real, err := filepath.EvalSymlinks(path); err == nil && real != dir && !strings.HasPrefix(real, dir+"/") {
				t.Errorf("%s leads to %s", path, real)
			}
			return nil
		})
	})
}
