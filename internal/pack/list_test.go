package pack

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/hostile"
	"github.com/bilbycast/edge-agent/internal/tarstream"
	"github.com/bilbycast/edge-agent/release"
)

// packedOf writes a packed file with those entries. A regular file's Linkname is its content.
func packedOf(t *testing.T, format string, entries []tar.Header) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x."+format)
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := Writer(format, f, 1)
	if err != nil {
		t.Fatal(err)
	}
	a := tar.NewWriter(w)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if err := a.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(a.Close(), w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWhatANodeWouldUnpack(t *testing.T) {
	t.Parallel()
	file := func(name, content string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content, Mode: mode}
	}
	of := func(kind byte, name, target string) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o755}
	}
	tarball := []tar.Header{of(tar.TypeDir, "bin/", ""), file("bin/edge", "program", 0o755), of(tar.TypeSymlink, "bin/link", "edge"), file("lib/a", "data", 0o644)}
	for name, tt := range map[string]struct {
		zst  []tar.Header
		says string // "": the same
	}{
		"the same": {tarball, ""},
		"another order, other owners and times, no entries of directories": {[]tar.Header{
			file("./lib/a", "data", 0o600),
			{Typeflag: tar.TypeReg, Name: "bin/edge", Linkname: "program", Mode: 0o711, Uid: 7, ModTime: time.Unix(7, 0)},
			of(tar.TypeSymlink, "bin/link", "edge"),
		}, ""},
		"a byte":         {append(tarball[:3:3], file("lib/a", "dATA", 0o644)), `"lib/a" is a file of 4 bytes with the SHA-256 `},
		"a size":         {append(tarball[:3:3], file("lib/a", "data and more", 0o644)), `"lib/a" is a file of 13 bytes`},
		"a mode":         {append(tarball[:3:3], file("lib/a", "data", 0o755)), `"lib/a" is a program of 4 bytes`},
		"a name":         {append(tarball[:3:3], file("lib/b", "data", 0o644)), `it lacks "lib/a"`},
		"one file more":  {append(tarball[:4:4], file("lib/b", "data", 0o644)), `it has "lib/b", which the tarball lacks`},
		"one file fewer": {tarball[:3], `it lacks "lib"`},
		"another link":   {append(tarball[:2:2], of(tar.TypeSymlink, "bin/link", "other"), tarball[3]), `"bin/link" is a link to "other", but in the tarball a link to "edge"`},
		"a copy":         {append(tarball[:2:2], file("bin/link", "program", 0o755), tarball[3]), `"bin/link" is a program of 7 bytes`},
		"a directory":    {append(tarball[:4:4], of(tar.TypeDir, "empty/", "")), `it has "empty"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err1 := List(release.FormatGzip, packedOf(t, release.FormatGzip, tarball), 0)
			b, err2 := List(release.FormatZstd, packedOf(t, release.FormatZstd, tt.zst), 0)
			if err := errors.Join(err1, err2); err != nil || a.Unpacked != 11 {
				t.Fatal(err, a.Unpacked)
			}
			err := a.Same(b)
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

// A hard link is a file of its own to a node.
func TestAHardLinkIsAFile(t *testing.T) {
	t.Parallel()
	content := tar.Header{Typeflag: tar.TypeReg, Name: "a", Linkname: "data", Mode: 0o644}
	again := content
	again.Name = "b"
	link := tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}
	a, err1 := List(release.FormatGzip, packedOf(t, release.FormatGzip, []tar.Header{content, link}), 0)
	b, err2 := List(release.FormatZstd, packedOf(t, release.FormatZstd, []tar.Header{content, again}), 0)
	if err := errors.Join(err1, err2, a.Same(b)); err != nil {
		t.Error(err)
	}
	if _, err := List(release.FormatGzip, packedOf(t, release.FormatGzip, []tar.Header{link}), 0); err == nil {
		t.Error("a hard link to nothing is listed")
	}
}

// What a node refuses of a packed file, the publisher's check refuses, too.
func TestAPackedFileIsOneStream(t *testing.T) {
	t.Parallel()
	skippable := append([]byte{0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0}, "skip"...)
	for _, tt := range []struct {
		name, format string
		change       func(packed []byte) []byte
		says         string
	}{
		{"two gzip members", release.FormatGzip, func(b []byte) []byte { return append(b, b...) }, "after the end of the gzip stream"},
		{"two zstd frames", release.FormatZstd, func(b []byte) []byte { return append(b, b...) }, "after the end of the zstd stream"},
		{"a skippable frame first", release.FormatZstd, func(b []byte) []byte { return append(bytes.Clone(skippable), b...) }, "skippable"},
		{"a skippable frame last", release.FormatZstd, func(b []byte) []byte { return append(b, skippable...) }, "after the end of the zstd stream"},
		{"bytes after a frame", release.FormatZstd, func(b []byte) []byte { return append(b, "x"...) }, "after the end of the zstd stream"},
		{"nothing", release.FormatZstd, func([]byte) []byte { return nil }, "not a zstd file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := packedOf(t, tt.format, []tar.Header{{Typeflag: tar.TypeReg, Name: "a", Linkname: "data", Mode: 0o644}})
			b, err := os.ReadFile(file)
			if err := errors.Join(err, os.WriteFile(file, tt.change(b), 0o644)); err != nil {
				t.Fatal(err)
			}
			if _, err := List(tt.format, file, 0); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

// So are many bytes after the last entry, which a node would unpack for nothing.
func TestBytesAfterTheLastEntry(t *testing.T) {
	t.Parallel()
	for _, format := range []string{release.FormatGzip, release.FormatZstd} {
		file := filepath.Join(t.TempDir(), "packed")
		var tarball, packed bytes.Buffer
		if err := tar.NewWriter(&tarball).Close(); err != nil {
			t.Fatal(err)
		}
		tarball.Write(make([]byte, tarstream.MaxTrailer+1))
		w, err := Writer(format, &packed, 1)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tarball.WriteTo(w)
		if err := errors.Join(err, w.Close(), os.WriteFile(file, packed.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
		if _, err := List(format, file, 0); err == nil || !strings.Contains(err.Error(), "after the last entry") {
			t.Errorf("%s: %v", format, err)
		}
	}
}

// A hostile archive is refused as a node refuses it.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	for _, c := range hostile.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if c.Slow && testing.Short() {
				t.Skip("slow")
			}
			file := filepath.Join(t.TempDir(), "x.tar.gz")
			if err := os.WriteFile(file, c.Tarball(), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := List(release.FormatGzip, file, c.Unpacked); err == nil || !strings.Contains(err.Error(), c.Error) {
				t.Errorf("got %v, want %q", err, c.Error)
			}
		})
	}
}
