package watchdog_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/oddfs"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

// on returns a root on the file system f, with 1.1.0 on trial for max starts; 0: at rest.
func on(t *testing.T, f *oddfs.FS, max int) state.Layout {
	t.Helper()
	l, err := state.At(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	lay(t, l)
	if max == 0 {
		return l
	}
	if _, err = l.Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		s = state.Begin(s, state.Trial{ID: "c", CommandID: "c", Target: v2, MaxAttempts: max}, time.Now())
		tr.Previous, tr.Current = v1, v2
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

// Where the file system has no locks, or has them no more, a trial has as many starts as
// elsewhere, and then ends: a healthy version is not rolled back for a fault of the file
// system. A node at rest just starts. Both report the fault.
func TestStartsAreCountedWithoutLocks(t *testing.T) {
	t.Parallel()
	for name, errno := range map[string]unix.Errno{"no locks": unix.ENOLCK, "not supported": unix.EOPNOTSUPP, "not known": unix.ENOSYS, "bad": unix.EBADF} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := oddfs.Mount(t, oddfs.NFS)
			l := on(t, f, 2)
			f.Refuse(t, oddfs.Refusals{oddfs.Lock: errno})
			for _, want := range []string{
				"pending_health 1.1.0 1/2 reverted=false errs=1",
				"pending_health 1.1.0 2/2 reverted=false errs=1",
				"rolled_back 1.0.0 2/2 reverted=true errs=1",
				"rolled_back 1.0.0 2/2 reverted=false errs=1",
			} {
				rep := watchdog.Run(t.Context(), l)
				if got := short(rep); got != want {
					t.Errorf("got %s, want %s: %v", got, want, rep.Errs)
				}
				if len(rep.Errs) != 1 || !errors.Is(rep.Errs[0], fsutil.ErrNoLock) || !strings.Contains(rep.Errs[0].Error(), "fuse.odd") {
					t.Errorf("it reports %v", rep.Errs)
				}
			}
			if to, _ := os.Readlink(l.Current()); to != "versions/1.0.0" {
				t.Errorf("current -> %s", to)
			}
			// Nobody else may change the root without the lock.
			if _, err := l.Do(t.Context(), nil); !errors.Is(err, fsutil.ErrNoLock) {
				t.Errorf("another process: %v", err)
			}

			f = oddfs.Mount(t, oddfs.NFS)
			l = on(t, f, 0)
			f.Refuse(t, oddfs.Refusals{oddfs.Lock: errno})
			for range 3 {
				if got := short(watchdog.Run(t.Context(), l)); got != "stable 1.0.0 0/0 reverted=false errs=1" {
					t.Errorf("at rest: %s", got)
				}
			}
		})
	}
}

// On NFS, which locks only descriptors that are open for writing, everything is as on a
// local disk.
func TestCountsOnNFS(t *testing.T) {
	t.Parallel()
	l := on(t, oddfs.Mount(t, oddfs.NFS), 1)
	for _, want := range []string{"pending_health 1.1.0 1/1 reverted=false errs=0", "rolled_back 1.0.0 1/1 reverted=true errs=0"} {
		if got := short(watchdog.Run(t.Context(), l)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// A lock that cannot be taken for another reason than the file system ends a trial by the
// link, as before: this start cannot be counted safely.
func TestALockThatCannotBeOpenedEndsATrial(t *testing.T) {
	t.Parallel()
	f := oddfs.Mount(t, oddfs.Refusals{})
	l := on(t, f, 3)
	f.Refuse(t, oddfs.Refusals{oddfs.Lock: unix.EIO})
	if got := short(watchdog.Run(t.Context(), l)); got != "rolled_back 1.0.0 0/3 reverted=true errs=1" {
		t.Error(got)
	}
}
