//go:build !sim

package upgrade

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
)

// slowFS has no files, and answers slowly.
type slowFS struct{ asked, answer chan struct{} }

func (s slowFS) Open(name string) (fs.File, error) {
	s.asked <- struct{}{}
	<-s.answer
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// A host that is slow with a trust root keeps nobody from the install root.
func TestATrustRootIsReadWithoutTheLock(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(l.TrustDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	slow := slowFS{make(chan struct{}), make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := RenewTrust(t.Context(), l, slow)
		done <- err
	}()
	select {
	case <-slow.asked:
	case err := <-done:
		t.Fatalf("the host was not asked: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := l.Locked(ctx, func() error { return nil }); err != nil {
		t.Errorf("the lock is held while the host is asked: %v", err)
	}
	go func() {
		for range slow.asked {
		}
	}()
	close(slow.answer)
	if err := <-done; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the renewal ends with %v", err)
	}
	close(slow.asked)
}
