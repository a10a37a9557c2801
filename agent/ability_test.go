//go:build !sim

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/oddfs"
	"github.com/bilbycast/edge-agent/wire"
	"golang.org/x/sys/unix"
)

// A node whose root cannot do what upgrades need runs, and says why it offers none: in its
// log, to systemd, and in its health. Once the file system is repaired it offers them
// again, without a restart.
func TestARootThatCannotUpgradeIsReported(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		refuse oddfs.Refusals
		want   string
	}{
		"vfat":      {oddfs.VFAT, "cannot make symbolic links"},
		"no locks":  {oddfs.Refusals{oddfs.Lock: unix.ENOLCK}, "cannot lock files"},
		"read-only": {oddfs.Refusals{oddfs.Create: unix.EROFS, oddfs.Rename: unix.EROFS}, "mount it read-write"},
		"modes":     {oddfs.Refusals{oddfs.Chmod: oddfs.IgnoresChmod}, "cannot restrict the modes of files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := oddfs.Mount(t, oddfs.Refusals{})
			c := rootAt(t, f.Dir, "ws://127.0.0.1:1")
			told, log := &lines{}, &lines{}
			c.Notify = func(s string) error { fmt.Fprintln(told, s); return nil }
			c.Log = logTo(log, slog.LevelDebug)
			f.Refuse(t, tt.refuse)
			synctest.Test(t, func(t *testing.T) {
				a, err := newOf(c)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- a.Run(ctx) }()
				time.Sleep(2*tryRootEvery + time.Second)
				if !strings.Contains(told.String(), "READY=1") || strings.Contains(told.String(), "STOPPING") {
					t.Errorf("systemd was told %s", told)
				}
				if why := a.unavailable(); why == nil || !strings.Contains(why.Error(), tt.want) || !strings.Contains(why.Error(), "fuse.odd") {
					t.Errorf("the reason is %v", why)
				}
				if n := strings.Count(log.String(), tt.want); n == 0 || !strings.Contains(told.String(), tt.want) {
					t.Errorf("the log: %s\nsystemd: %s", log, told)
				}
				f.Refuse(t, oddfs.Refusals{})
				time.Sleep(tryRootEvery + time.Second)
				if a.mu.Lock(); a.unableErr != nil {
					t.Errorf("repaired: %v", a.unableErr)
				}
				a.mu.Unlock()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
			if left := slices.DeleteFunc(names(t, f.Dir), func(name string) bool { return !strings.HasPrefix(name, fsutil.TempPrefix) }); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// A full disk, and every other error that may pass, withholds no upgrade; an earlier verdict
// stays.
func TestAnErrorThatMayPassIsNoVerdict(t *testing.T) {
	t.Parallel()
	c, l, _ := lonely(t)
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, errno := range []error{unix.ENOSPC, unix.EIO, unix.EMFILE} {
		for _, before := range []*fsutil.Inability{nil, {Dir: l.Root(), Ability: fsutil.CanLock, Err: unix.ENOLCK}} {
			a.setUnable(before)
			a.c.Layout = l.On(fsutil.Disk{Seam: failing{errno}})
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*tryRootEvery)
				defer cancel()
				if err := a.tryRoot(ctx); err != nil {
					t.Error(err)
				}
			})
			if had := before != nil; (a.unableErr != nil) != had {
				t.Errorf("%v: %v, before: %v", errno, a.unableErr, before)
			}
		}
	}
}

// On NFS, which locks only descriptors that are open for writing, a node registers once,
// and offers upgrades.
func TestANodeOnNFS(t *testing.T) {
	t.Parallel()
	var health atomic.Pointer[wire.Health]
	var registered atomic.Int64
	f := oddfs.Mount(t, oddfs.NFS)
	c := rootAt(t, f.Dir, manager(t, func(p peer) {
		if p.auth.RegistrationToken != "" {
			registered.Add(1)
		}
		p.welcome()
		if h, ok := p.until("health", func(m wire.Message) bool {
			h, ok := m.(*wire.Health)
			return ok && slices.Contains(h.Capabilities, wire.CapabilityUpgrade)
		}).(*wire.Health); ok {
			health.Store(h)
		}
		p.drain()
	}))
	runAgent(t, c)
	wait(t, "the capability", func() bool { return health.Load() != nil })
	if n := registered.Load(); n != 1 {
		t.Errorf("%d registrations", n)
	}
	if b, err := os.ReadFile(filepath.Join(f.Dir, "credentials.json")); err != nil || !json.Valid(b) {
		t.Errorf("credentials.json: %s, %v", b, err)
	}
}

// Without locks the node registers at no connection, and says why. If the locks fail after
// it has registered, it keeps the credentials, and writes them once it can.
func TestNoNodeIsMadeForEachConnectionWithoutLocks(t *testing.T) {
	t.Parallel()
	f := oddfs.Mount(t, oddfs.Refusals{})
	var registered atomic.Int64
	url := manager(t, func(p peer) {
		if p.auth.RegistrationToken != "" {
			registered.Add(1)
			f.Refuse(t, oddfs.Refusals{oddfs.Lock: unix.ENOLCK})
		}
		p.welcome()
		p.drain()
	})
	a, err := newOf(rootAt(t, f.Dir, url))
	if err != nil {
		t.Fatal(err)
	}
	for _, errno := range []unix.Errno{unix.ENOLCK, unix.EBADF, unix.EOPNOTSUPP} {
		f.Refuse(t, oddfs.Refusals{oddfs.Lock: errno})
		if err := a.session(t.Context(), url); !errors.Is(err, fsutil.ErrNoLock) || !strings.Contains(err.Error(), "not registering") {
			t.Errorf("%v: %v", errno, err)
		}
	}
	if n := registered.Load(); n != 0 {
		t.Errorf("%d registrations", n)
	}
	f.Refuse(t, oddfs.Refusals{})
	session := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		go func() { wait(t, "authenticated", a.isAuthenticated); cancel() }()
		a.session(ctx, url)
		a.setAuthenticated(false)
	}
	for range 3 {
		session()
	}
	if n := registered.Load(); n != 1 || a.registered.NodeID != "n" {
		t.Errorf("%d registrations, credentials in memory: %t", n, a.registered.NodeID != "")
	}
	f.Refuse(t, oddfs.Refusals{})
	session()
	if c, err := loadCredentials(a.c.Layout); err != nil || c.NodeID != "n" || registered.Load() != 1 {
		t.Errorf("%+v, %v, %d registrations", c, err, registered.Load())
	}
}
