//go:build !sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"github.com/bilbycast/edge-agent/internal/box"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
)

// lonely is a node whose manager does not answer, its root, and what it tells systemd.
func lonely(t *testing.T) (node, state.Layout, *lines) {
	t.Helper()
	c := rootWith(t, "ws://127.0.0.1:1")
	told := &lines{}
	c.Notify = func(s string) error { fmt.Fprintln(told, s); return nil }
	l, err := state.At(c.Service.InstallRoot)
	if err != nil {
		t.Fatal(err)
	}
	return c, l, told
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A second agent on a root fails before it changes anything, and names the first.
func TestASecondAgentFails(t *testing.T) {
	t.Parallel()
	for _, attached := range []bool{false, true} {
		c, l, told := lonely(t)
		if attached {
			c.Service.Unit = "app.service"
		}
		lock, err := fsutil.HoldFile(t.Context(), l.AgentLock(), 0)
		if err != nil {
			t.Fatal(err)
		}
		before := names(t, l.Root())
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			if attached {
				err = Attend(t.Context(), c.Config, c.Options, fakeUnit{})
			} else {
				var a *Agent
				if a, err = newOf(c); err == nil {
					err = a.Run(t.Context())
				}
			}
			want := fmt.Sprintf("another agent runs on the install root %s: process %d (%s", l.Root(), os.Getpid(), os.Args[0])
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("attached %v: %v", attached, err)
			}
			if waited := time.Since(began); waited < holdWait || waited > 2*holdWait {
				t.Errorf("attached %v: it waited for %v", attached, waited)
			}
		})
		if after := names(t, l.Root()); !slices.Equal(after, before) || told.String() != "" {
			t.Errorf("attached %v: the root had %v, and has %v; systemd was told %s", attached, before, after, told)
		}
		lock.Unlock()
	}
}

// The agent of the start before may still be stopping.
func TestAnAgentWaitsForTheOneBeforeIt(t *testing.T) {
	t.Parallel()
	c, l, told := lonely(t)
	lock, err := fsutil.HoldFile(t.Context(), l.AgentLock(), 0)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(holdWait - time.Second)
		if told.String() != "" {
			t.Errorf("systemd was told %s", told)
		}
		lock.Unlock()
		time.Sleep(time.Second)
		synctest.Wait() // it may try at this very moment
		if !strings.Contains(told.String(), "READY=1") {
			t.Errorf("systemd was told %s", told)
		}
		if _, err := fsutil.HoldFile(ctx, l.AgentLock(), 0); !errors.Is(err, fsutil.ErrLocked) {
			t.Errorf("while it runs: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if lock, err = fsutil.HoldFile(t.Context(), l.AgentLock(), 0); err != nil {
		t.Fatalf("when it has ended: %v", err)
	}
	lock.Unlock()
}

// Where the root cannot be locked the agent runs, and offers no upgrades until it can.
func TestAnAgentRunsWithoutALock(t *testing.T) {
	t.Parallel()
	c, l, told := lonely(t)
	if err := os.Mkdir(l.AgentLock(), 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(2 * holdRetry)
		synctest.Wait()
		if why := a.unavailable(); why == nil || !strings.Contains(why.Error(), "cannot be locked") || !strings.Contains(told.String(), "cannot be locked") || !strings.Contains(told.String(), "READY=1") {
			t.Errorf("the reason is %v; systemd was told %s", why, told)
		}
		if err := os.Remove(l.AgentLock()); err != nil {
			t.Error(err)
		}
		time.Sleep(holdRetry + time.Second)
		synctest.Wait()
		if err := a.hold.problem(); err != nil {
			t.Error(err)
		}
		if _, err := fsutil.HoldFile(ctx, l.AgentLock(), 0); !errors.Is(err, fsutil.ErrLocked) {
			t.Errorf("now it holds the lock: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An attached agent holds the lock over all versions of its service.
func TestAttendHoldsTheLockOverAllVersions(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		attend(t, c, l, fakeUnit{restart: func(string, bool) error { return errors.New("the disk is full") }}, func(r state.Result) bool {
			if _, err := fsutil.HoldFile(t.Context(), l.AgentLock(), 0); !errors.Is(err, fsutil.ErrLocked) {
				t.Errorf("%s: %v", r.Tree.Current, err)
			}
			return r.State.Status != state.PendingHealth
		})
	})
}

// A start that systemd made, and that the watchdog counted, does not fail because another
// process holds the root: the agent runs, and refuses upgrades.
func TestASecondAgentOfSystemdRuns(t *testing.T) {
	box.Slow(t)
	t.Setenv("INVOCATION_ID", strings.Repeat("a", 32))
	t.Setenv("SYSTEMD_EXEC_PID", strconv.Itoa(os.Getpid()))
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := fsutil.HoldFile(t.Context(), l.AgentLock(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Unlock()
	h, err := holdRoot(t.Context(), l, slog.New(slog.DiscardHandler))
	if err != nil || h.problem() == nil || !strings.Contains(h.problem().Error(), "another agent runs on the install root") {
		t.Fatalf("%v, %v", h.problem(), err)
	}
	h.release()
	// A person's shell has inherited the id of another unit's start.
	t.Setenv("SYSTEMD_EXEC_PID", "1")
	synctest.Test(t, func(t *testing.T) {
		if h, err := holdRoot(t.Context(), l, slog.New(slog.DiscardHandler)); err == nil || h != nil || !strings.Contains(err.Error(), "another agent runs on the install root") {
			t.Errorf("by hand: %v", err)
		}
	})
}
