package stage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/release"
)

// Staging records every file, and Compare finds each that differs, and no other.
func TestCompare(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	v := release.MustVersion("1.0.0")
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(v), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	dir := s.Layout.Version(v)
	program := filepath.Join(dir, s.Binary)
	whole, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(dir, state.DigestsFile)
	lines, err := os.ReadFile(record)
	if err != nil || strings.Count(string(lines), "\n") < 2 || !strings.Contains(string(lines), "*"+s.Binary+"\n") {
		t.Fatalf("%s, %v", lines, err)
	}
	var data string // a file that is no program
	for line := range strings.Lines(string(lines)) {
		if _, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			data = filepath.Join(dir, name)
		}
	}
	if data == "" {
		t.Fatalf("no data file in %s", lines)
	}
	sum := exec.Command("sha256sum", "--check", "--strict", "--quiet", state.DigestsFile)
	sum.Dir = dir
	if out, err := sum.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v: %s", err, out)
	}
	flip := func(b []byte) []byte { c := append([]byte(nil), b...); c[len(c)/2] ^= 1; return c }
	marker := filepath.Join(dir, Marker)
	text, err := os.ReadFile(marker)
	if err != nil || !strings.Contains(string(text), `"record":"`) {
		t.Fatalf("%s, %v", text, err)
	}
	// forget leaves a marker of an agent that did not record the record.
	forget := func() error {
		return os.WriteFile(marker, append(bytes.Clone(text[:bytes.Index(text, []byte(`,"record"`))]), '}'), 0o644)
	}
	for name, tt := range map[string]struct {
		change func() error
		why    string
		code   bool
	}{
		"nothing":                             {func() error { return nil }, "", false},
		"an extra file":                       {func() error { return os.WriteFile(filepath.Join(dir, "cache"), []byte("x"), 0o644) }, "", false},
		"one bit of a program":                {func() error { return os.WriteFile(program, flip(whole), 0o755) }, "has another content", true},
		"a missing program":                   {func() error { return os.Remove(program) }, "is missing", true},
		"a FIFO":                              {func() error { return errors.Join(os.Remove(program), exec.Command("mkfifo", program).Run()) }, "has another content", true},
		"a changed data file":                 {func() error { return os.Truncate(data, 1) }, "has another content", false},
		"no record":                           {func() error { return os.Remove(record) }, "is missing or damaged", true},
		"an emptied record":                   {func() error { return os.Truncate(record, 0) }, "is missing or damaged", true},
		"a shortened record":                  {func() error { return os.WriteFile(record, lines[:bytes.IndexByte(lines, '\n')+1], 0o644) }, "is missing or damaged", true},
		"one bit of the record":               {func() error { return os.WriteFile(record, flip(lines), 0o644) }, "is missing or damaged", true},
		"its right to execute":                {func() error { return os.Chmod(program, 0o644) }, "is not executable any more", true},
		"a link in its place":                 {func() error { return errors.Join(os.Remove(data), os.Symlink("/etc/hostname", data)) }, "is not a regular file", false},
		"a link to itself":                    {func() error { return errors.Join(os.Remove(data), os.Symlink(filepath.Base(data), data)) }, "is not a regular file", false},
		"an earlier agent, no record":         {func() error { return errors.Join(os.Remove(record), forget()) }, "", false},
		"an earlier agent, an emptied record": {func() error { return errors.Join(os.Truncate(record, 0), forget()) }, "is missing or damaged", true},
		"an earlier agent":                    {forget, "", false},
	} {
		saved, err := os.ReadFile(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.change(); err != nil {
			t.Fatal(err)
		}
		changes, err := Compare(t.Context(), s.Layout, v)
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.why == "" && len(changes) > 0, tt.why != "" && (len(changes) != 1 || !strings.Contains(changes[0].Why, tt.why) || changes[0].Code != tt.code):
			t.Errorf("%s: %+v", name, changes)
		}
		if err := errors.Join(os.RemoveAll(program), os.RemoveAll(data), os.WriteFile(program, whole, 0o755), os.WriteFile(marker, text, 0o644), os.WriteFile(data, saved, 0o644), os.WriteFile(record, lines, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	unreadable.While(t, s.Layout.Root(), program, func() {
		if changes, err := Compare(t.Context(), s.Layout, v); err == nil || len(changes) > 0 {
			t.Errorf("an unreadable program: %+v, %v", changes, err)
		}
	})
	for _, damaged := range []string{"x\n", strings.Repeat("0", 64) + "\n", strings.Repeat("0", 64) + "  ../../../etc/hostname\n"} {
		if err := os.WriteFile(record, []byte(damaged), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{text, append(bytes.Clone(text[:bytes.Index(text, []byte(`,"record"`))]), '}')} {
			if err := os.WriteFile(marker, b, 0o644); err != nil {
				t.Fatal(err)
			}
			// Without the digest of the record, its own form tells.
			if changes, err := Compare(t.Context(), s.Layout, v); err != nil || len(changes) == 0 || changes[0].Path != state.DigestsFile && !strings.Contains(changes[0].Why, "outside") {
				t.Errorf("a record with %q: %+v, %v", damaged, changes, err)
			}
		}
	}
}

// Links and further names of files are recorded, and a link to a library counts as one.
func TestCompareLinks(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v := release.MustVersion("1.0.0")
	dir := l.Version(v)
	if err := errors.Join(l.Make(), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	packed := linkArchive(t, []tar.Header{
		{Name: "bin/app", Mode: 0o755, Size: 10}, {Name: "lib/libx.so.1", Mode: 0o644, Size: 10},
		{Name: "lib/libx.so", Typeflag: tar.TypeSymlink, Linkname: "libx.so.1"},
		{Name: "lib64", Typeflag: tar.TypeSymlink, Linkname: "lib"},
		{Name: "run", Typeflag: tar.TypeSymlink, Linkname: "bin/app"},
		{Name: "www/a \"b\"", Mode: 0o644, Size: 10},
		{Name: "www/index", Typeflag: tar.TypeSymlink, Linkname: "a \"b\""},
		{Name: "bin/again", Typeflag: tar.TypeLink, Linkname: "bin/app"},
	})
	s := &Stager{Config: Config{Layout: l, Progress: func(string, int64, int64) {}}}
	if _, err := s.extract(t.Context(), packed, dir, packing{format: release.FormatGzip, size: 1 << 20, progress: func(int64) {}}); err != nil {
		t.Fatal(err)
	}
	if changes, err := Compare(t.Context(), l, v); err != nil || len(changes) > 0 {
		t.Fatalf("%+v, %v", changes, err)
	}
	for _, tt := range []struct {
		name, to string
		code     bool
	}{{"lib/libx.so", "libx.so.1", true}, {"lib64", "lib", true}, {"run", "bin/app", true}, {"www/index", "a \"b\"", false}, {"bin/again", "", true}} {
		path := filepath.Join(dir, tt.name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if changes, err := Compare(t.Context(), l, v); err != nil || len(changes) != 1 || changes[0] != (Change{tt.name, "is missing", tt.code}) {
			t.Errorf("without %s: %+v, %v", tt.name, changes, err)
		}
		if tt.to == "" {
			continue
		}
		if err := os.Symlink("elsewhere", path); err != nil {
			t.Fatal(err)
		}
		if changes, err := Compare(t.Context(), l, v); err != nil || len(changes) != 1 || !strings.Contains(changes[0].Why, "is a link to elsewhere") {
			t.Errorf("%s elsewhere: %+v, %v", tt.name, changes, err)
		}
		if err := errors.Join(os.Remove(path), os.Symlink(tt.to, path)); err != nil {
			t.Fatal(err)
		}
	}
}

// linkArchive returns a gzipped archive, whose files hold ELF programs.
func linkArchive(t *testing.T, headers []tar.Header) *bytes.Buffer {
	t.Helper()
	b := &bytes.Buffer{}
	z := gzip.NewWriter(b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		err := w.WriteHeader(&h)
		if h.Size > 0 && err == nil {
			text := "\x7fELF123456"
			if strings.HasPrefix(h.Name, "www/") {
				text = "0123456789"
			}
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}
