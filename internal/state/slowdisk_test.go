package state

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
)

// blocking is a disk on which the first fsync takes until free is closed.
type blocking struct {
	once *sync.Once
	at   func()
}

func (b blocking) Change(op fsutil.Op, make func() error) error {
	if op.Kind == fsutil.OpSync {
		b.once.Do(b.at)
	}
	return make()
}

// Goroutines of one process wait for each other, however slow the disk is. Another process
// waits for LockWait.
func TestDoWaitsForASlowDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := root(t)
		inside, free := make(chan struct{}), make(chan struct{})
		slow := l.On(fsutil.Disk{Seam: blocking{&sync.Once{}, func() { close(inside); <-free }}})
		change := func(id string) Change {
			return func(s State, t Tree, now time.Time) (State, Tree, error) {
				return Start(s, Command{ID: id, Version: v2, From: v1}, now), t, nil
			}
		}
		done := make(chan error, 2)
		go func() { _, err := slow.Do(t.Context(), change("a")); done <- err }()
		<-inside
		go func() { _, err := l.Do(t.Context(), change("b")); done <- err }()
		time.Sleep(100 * LockWait)
		close(free)
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		if res := do(t, l, nil); len(res.State.Commands) != 2 {
			t.Errorf("%+v", res.State.Commands)
		}
		lock, err := fsutil.LockFile(t.Context(), l.lockFile(), 0) // as another process
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Unlock()
		began := time.Now()
		if _, err := l.Do(t.Context(), nil); !errors.Is(err, fsutil.ErrLocked) || time.Since(began) > 2*LockWait {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
