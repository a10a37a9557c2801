package upgrade

import (
	"context"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// While a release is fetched, whatever its host or its program does, another
// process gets the lock of the root: nothing holds it during network access, a
// subprocess, or a read of unknown length. With the lock held, the change below
// would fail after state.LockWait.
func TestTheLockIsFreeWhileOthersAreSlow(t *testing.T) {
	t.Parallel()
	n := nodeWith(t, "0.9.0", "")
	var mu sync.Mutex
	var seen []string
	tryLock := func(while string) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*state.LockWait)
		defer cancel()
		if _, err := n.Layout.Do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) { return s, t, nil }); err != nil {
			t.Errorf("while %s: %v", while, err)
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, while)
	}
	trust := trusted(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tryLock("the host answers " + path.Base(r.URL.Path))
			h.ServeHTTP(w, r)
		})
	})
	// The program of the release opens this for writing, and waits for a reader.
	wait := filepath.Join(n.Layout.Root(), "wait")
	if err := syscall.Mkfifo(wait, 0o600); err != nil {
		t.Fatal(err)
	}
	var script sync.WaitGroup
	script.Go(func() {
		f, err := os.Open(wait) // once the program runs
		if err != nil {
			t.Error(err)
			return
		}
		f.Close()
		tryLock("the program runs")
		if f, err = os.OpenFile(wait, os.O_WRONLY, 0); err != nil { // the program continues
			t.Error(err)
			return
		}
		f.Close()
	})
	p, err := newPipeline(Config{Node: &n, Progress: func(phase string, done, total int64) {
		if done == 0 {
			tryLock("in phase " + phase)
		}
	}}, trust)
	if err != nil {
		t.Fatal(err)
	}
	v := release.MustVersion("1.0.0")
	_, err = p.Run(t.Context(), p.Host(v), Request{Version: v, Downloaded: func() { tryLock("downloaded") }})
	if err != nil {
		t.Fatal(err)
	}
	script.Wait()
	for _, want := range []string{
		"the host answers manifest.json", "the host answers manifest.sig.bundle", "the host answers edge-1.0.0-" + release.HostArch() + "-default.tar.gz",
		"in phase verify", "in phase check", "the program runs", "downloaded",
	} {
		if !slices.Contains(seen, want) {
			t.Errorf("the test did not see: %s (only %q)", want, seen)
		}
	}
}
