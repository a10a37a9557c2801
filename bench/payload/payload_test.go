package payload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"a": "first", "sub/b": "second"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEqual(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(dir string) error
		want   string // "": equal
	}{
		"the same":   {func(string) error { return nil }, ""},
		"more files": {func(dir string) error { return os.WriteFile(filepath.Join(dir, ".marker"), nil, 0o600) }, ""},
		"missing":    {func(dir string) error { return os.Remove(filepath.Join(dir, "sub", "b")) }, "no such file"},
		"empty":      {func(dir string) error { return os.Truncate(filepath.Join(dir, "a"), 0) }, "0 bytes, want 5"},
		"zeroes":     {func(dir string) error { return os.WriteFile(filepath.Join(dir, "a"), make([]byte, 5), 0o644) }, "content differs"},
		"mode":       {func(dir string) error { return os.Chmod(filepath.Join(dir, "a"), 0o755) }, "mode"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, got := tree(t), tree(t)
			if err := c.change(got); err != nil {
				t.Fatal(err)
			}
			err := Equal(want, got)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestCopyAndPad(t *testing.T) {
	t.Parallel()
	from, to := tree(t), filepath.Join(t.TempDir(), "tree")
	if err := Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := Pad(to, 3_000_000); err != nil {
		t.Fatal(err)
	}
	files, size, err := Size(to)
	if err != nil || files != 4 || size < 3_000_011 {
		t.Errorf("%d files, %d bytes, %v", files, size, err)
	}
	if st, err := os.Stat(filepath.Join(to, Program)); err != nil || st.Mode()&0o111 == 0 {
		t.Errorf("the program: %v, %v", st, err)
	}
}

// What a manifest offers decides which forms are measured.
func TestForms(t *testing.T) {
	t.Parallel()
	const chunks = `"chunks":{"size":1048576,"sha256":["00"]}`
	for artefact, want := range map[string]string{
		`{"url":"https://x/a.tar.gz"}`:                                                                         Gz,
		`{"url":"https://x/a.tar.gz",` + chunks + `}`:                                                          Gz + " " + GzChunks,
		`{"url":"https://x/a.tar.gz",` + chunks + `,"formats":[{"url":"https://x/a.xz"}]}`:                     Gz + " " + GzChunks,
		`{"url":"https://x/a.tar.gz",` + chunks + `,"formats":[{"url":"https://x/a.tar.zst"}]}`:                Gz + " " + GzChunks,
		`{"url":"https://x/a.tar.gz",` + chunks + `,"formats":[{"url":"https://x/a.tar.zst",` + chunks + `}]}`: Gz + " " + GzChunks + " " + ZstChunks,
	} {
		m, err := decode([]byte(`{"artefacts":[` + artefact + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, form := range []string{Gz, GzChunks, ZstChunks} {
			if (&Release{manifest: m}).Offers(form) == nil {
				got = append(got, form)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s offers %v, want %s", artefact, got, want)
		}
		for _, form := range got {
			size := int64(1 << 20)
			if form == Gz {
				size = 0
			}
			if n := (&Release{manifest: m}).ChunkSize(form); n != size {
				t.Errorf("%s: the chunks of %s have %d bytes", artefact, form, n)
			}
		}
	}
}
