package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/unreadable"
	"golang.org/x/sys/unix"
)

// A directory is read file by file, also one with many files of other releases; a file
// that cannot be read is reported as that, and not as missing.
func TestADirectoryAsASource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range maxFiles + 50 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d.json", i)), []byte("other"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	manifest := filepath.Join(dir, "manifest.json")
	if err := os.WriteFile(manifest, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := OpenSource(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	p, err := src.Open(t.Context(), "manifest.json", 0, "")
	if err != nil || p.Total != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	if b, err := io.ReadAll(p.Body); err != nil || string(b) != "{}" {
		t.Errorf("%q, %v", b, err)
	}
	if err := p.Body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := src.Open(t.Context(), "none.json", 0, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	unreadable.While(t, dir, manifest, func() {
		denied, err := OpenSource(dir)
		if err != nil {
			t.Error(err)
			return
		}
		defer denied.Close()
		if _, err := denied.Open(t.Context(), "manifest.json", 0, ""); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("an unreadable file: %v", err)
		}
	})
}

// A body is not read any more when Stage has returned, and so not beside the next one either.
func TestABodyIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, streamed)
	s.Layout = s.Layout.On(fsutil.Disk{Seam: &failing{kind: fsutil.OpWrite, err: unix.EIO}})
	synctest.Test(t, func(t *testing.T) {
		src := &slowToClose{closed: make(chan struct{})}
		if _, err := s.Stage(t.Context(), src, rel, a, func() {}); !errors.Is(err, unix.EIO) {
			t.Error(err)
		}
		if n := src.reads.Load(); n != 0 {
			t.Errorf("%d reads go on", n)
		}
	})
}

// slowToClose is a source whose body sends some bytes, and then waits for a second after Close.
type slowToClose struct {
	sent   bool
	reads  atomic.Int32 // that go on
	closed chan struct{}
}

func (s *slowToClose) Open(_ context.Context, _ string, at int64, _ string) (Part, error) {
	return Part{Body: slowBody{s}, From: at, End: -1}, nil
}

func (*slowToClose) Local() bool                 { return false }
func (*slowToClose) Describe(name string) string { return name }
func (*slowToClose) Close() error                { return nil }

type slowBody struct{ *slowToClose }

func (b slowBody) Read(p []byte) (int, error) {
	if !b.sent {
		b.slowToClose.sent = true
		return min(len(p), 1000), nil
	}
	b.reads.Add(1)
	defer b.reads.Add(-1)
	<-b.closed
	time.Sleep(time.Second)
	return 0, io.ErrClosedPipe
}

func (b slowBody) Close() error { close(b.closed); return nil }
