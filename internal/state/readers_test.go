package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/google/go-cmp/cmp"
)

// noChange is a disk that refuses every change, and counts it.
type noChange struct{ ops *[]fsutil.Op }

func (d noChange) Change(op fsutil.Op, _ func() error) error {
	*d.ops = append(*d.ops, op)
	return errors.New("this test allows no change")
}

// snapshot describes every file of dir: mode, size, times of the last change of content
// and inode, and content.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		b, _ := os.ReadFile(path) // nil for a directory
		to, _ := os.Readlink(path)
		files[path] = fmt.Sprintf("%v %d %v %v %s %x", st.Mode(), st.Size(), st.ModTime(), changed(st), to, b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// changed returns when the inode last changed.
func changed(st fs.FileInfo) time.Time {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return time.Unix(sys.Ctim.Unix())
	}
	return time.Time{}
}

// Readers report damage, and change nothing: neither a file, nor a link, nor a
// time, nor the lock. Only a writer, under the lock, sets a file aside.
func TestReadersChangeNothing(t *testing.T) {
	t.Parallel()
	write := func(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
	entry := func(l Layout, name string) string { return filepath.Join(l.OutboxDir(), name) }
	for name, damage := range map[string]func(Layout) error{
		"nothing":                     func(Layout) error { return nil },
		"state.json is gone":          func(l Layout) error { return os.Remove(l.StateFile()) },
		"state.json is torn":          func(l Layout) error { return write(l.StateFile(), `{"schema":1,"sta`) },
		"state.json is empty":         func(l Layout) error { return write(l.StateFile(), "") },
		"state.json is too large":     func(l Layout) error { return write(l.StateFile(), strings.Repeat(" ", MaxState+1)) },
		"state.json is newer":         func(l Layout) error { return write(l.StateFile(), `{"schema":99,"status":"stable"}`) },
		"state.json is a directory":   func(l Layout) error { return errors.Join(os.Remove(l.StateFile()), os.Mkdir(l.StateFile(), 0o700)) },
		"an entry is torn":            func(l Layout) error { return write(entry(l, "0000000000000009-torn.json"), `{"id":"to`) },
		"an entry is of another name": func(l Layout) error { return write(entry(l, "0000000000000009-x.json"), `{"id":"y","event":{}}`) },
		"an entry is a directory":     func(l Layout) error { return os.Mkdir(entry(l, "0000000000000009-x.json"), 0o700) },
		"the outbox is a file":        func(l Layout) error { return errors.Join(os.RemoveAll(l.OutboxDir()), write(l.OutboxDir(), "")) },
		"the outbox is gone":          func(l Layout) error { return os.RemoveAll(l.OutboxDir()) },
		"the lock is a directory":     func(l Layout) error { return errors.Join(os.Remove(l.lockFile()), os.Mkdir(l.lockFile(), 0o700)) },
		"the lock is gone":            func(l Layout) error { return os.Remove(l.lockFile()) },
		"current dangles": func(l Layout) error {
			return errors.Join(os.Remove(l.Current()), os.Symlink("versions/9.9.9", l.Current()))
		},
		"current is a directory": func(l Layout) error { return errors.Join(os.Remove(l.Current()), os.Mkdir(l.Current(), 0o700)) },
		"current was moved": func(l Layout) error {
			return errors.Join(os.Remove(l.Current()), os.Symlink("versions/1.0.0", l.Current()))
		},
		"last-good is gone":         func(l Layout) error { return os.Remove(l.LastGood()) },
		"a version is gone":         func(l Layout) error { return os.Remove(l.Version(v1)) },
		"every version is gone":     func(l Layout) error { return os.RemoveAll(l.Versions()) },
		"a removal was interrupted": func(l Layout) error { return write(l.tombstone(v2), "") },
		"an upgrade was interrupted": func(l Layout) error {
			return errors.Join(os.Mkdir(l.Partial(release.MustVersion("3.0.0")), 0o700), write(l.path(fsutil.TempPrefix+"x"), ""), write(l.Download("aa"), "x"))
		},
		"modes are wide": func(l Layout) error {
			return errors.Join(os.Chmod(l.Root(), 0o755), os.Chmod(l.OutboxDir(), 0o755), os.Chmod(l.StateFile(), 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := root(t)
			do(t, l, begin) // a trial, with entries in the outbox
			if err := damage(l); err != nil {
				t.Fatal(err)
			}
			var ops []fsutil.Op
			r := l.On(fsutil.Disk{Seam: noChange{&ops}})
			before := snapshot(t, l.Root())
			for range 2 { // a second read must find nothing that the first one left
				for _, l := range []Layout{r, r.AtStart(), r.RunningAs(v2)} {
					l.Read()
				}
				r.Tree()
				r.Inspect(uint32(os.Geteuid()))
				r.Outbox().List()
				r.Outbox().ListExcept(func(string) bool { return true })
				r.Downloaded()
				r.Linked()
				r.Writable()
				r.Removing(v2)
				r.Owner()
				r.StartRecorded()
				r.StartOf("x")
			}
			if d := cmp.Diff(before, snapshot(t, l.Root())); d != "" {
				t.Error(d)
			}
			if len(ops) > 0 {
				t.Errorf("readers tried to change the disk: %v", ops)
			}
		})
	}
}

// SetAside keeps a file that has been repaired or removed since a reader found it
// damaged, and waits for the lock.
func TestSetAsideLooksAgainUnderTheLock(t *testing.T) {
	t.Parallel()
	l := root(t)
	do(t, l, begin)
	paths := []string{filepath.Join(l.OutboxDir(), "0000000000000008-whole.json"), filepath.Join(l.OutboxDir(), "0000000000000009-gone.json")}
	for _, path := range paths {
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, bad, err := l.Outbox().List()
	if err != nil || len(bad) != 2 {
		t.Fatal(bad, err)
	}
	if err := errors.Join(os.WriteFile(paths[0], []byte(`{"id":"whole","event":{"code":"x","message":"m"}}`), 0o600), os.Remove(paths[1])); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, l.OutboxDir())
	for _, b := range bad {
		if err := l.Outbox().SetAside(t.Context(), b); err != nil {
			t.Error(err)
		}
	}
	if d := cmp.Diff(before, snapshot(t, l.OutboxDir())); d != "" {
		t.Error(d)
	}
	locked := make(chan error, 1)
	if err := l.Locked(t.Context(), func() error {
		if err := os.WriteFile(paths[1], []byte("{"), 0o600); err != nil {
			return err
		}
		go func() { locked <- l.Outbox().SetAside(t.Context(), bad[1]) }()
		select {
		case err := <-locked:
			return fmt.Errorf("it did not wait for the lock: %v", err)
		case <-time.After(100 * time.Millisecond):
			return nil
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-locked; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(paths[1] + corruptSuffix); err != nil {
		t.Error(err)
	}
}
