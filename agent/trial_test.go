package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/release"
)

// fullDisk has no space for a file, while it is full.
type fullDisk struct {
	full *atomic.Bool
	name string
}

func (d fullDisk) Change(op fsutil.Op, make func() error) error {
	if d.full.Load() && strings.HasSuffix(op.Path, d.name) && op.Kind != fsutil.OpRemove {
		return syscall.ENOSPC
	}
	return make()
}

// onTrial is an agent whose version 1.1.0 is on trial: window 60 s, hold 10 s.
type onTrial struct {
	*Agent
	res      state.Result
	mu       sync.Mutex
	notified []string
	onReady  func() // once systemd got READY=1
}

// trialRoot lays out a root in dir whose version 1.1.0 is on trial, with 1.0.0 to roll
// back to. It was not started yet.
func trialRoot(t *testing.T, dir string, attempts int) (state.Layout, release.Version) {
	t.Helper()
	l, err := state.At(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	v1, v2 := release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
	for _, v := range []release.Version{v1, v2} {
		if err := errors.Join(os.Mkdir(l.Version(v), 0o755), os.WriteFile(filepath.Join(l.Version(v), "app"), []byte("program"), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := (fsutil.Disk{}).Symlink("versions/1.0.0", l.Current()); err != nil {
		t.Fatal(err)
	}
	if _, err := doUnlocked(t, l, func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
		s = state.Begin(s, state.Trial{ID: "c", CommandID: "c", Target: v2, MaxAttempts: attempts}, now)
		tr.Previous, tr.Current = v1, v2
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	return l, v2
}

// doUnlocked is l.Do, which waits in real time while a child of another test has the lock: it
// inherits the file until it executes its program.
func doUnlocked(t *testing.T, l state.Layout, change state.Change) (res state.Result, err error) {
	for range 1000 {
		if res, err = l.Do(t.Context(), change); !errors.Is(err, fsutil.ErrLocked) {
			break
		}
		pause := syscall.NsecToTimespec(int64(10 * time.Millisecond))
		syscall.Nanosleep(&pause, nil)
	}
	return res, err
}

func newTrial(t *testing.T, dir string) *onTrial {
	t.Helper()
	l, v2 := trialRoot(t, dir, state.DefaultMaxAttempts)
	res, err := doUnlocked(t, l, func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
		s, tr = state.CountStart(s, tr, "", now)
		return s, tr, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	o := &onTrial{res: res}
	o.Agent = newAgent(settings{
		Settings: config.Settings{
			Config: config.Config{Upgrade: config.Upgrade{KeepVersions: 3}},
			Layout: l, Window: 60 * time.Second, Hold: 10 * time.Second,
			URLs: []string{"wss://manager.example"},
		},
		Options: Options{Log: slog.New(slog.DiscardHandler)},
		version: v2,
	})
	o.c.Notify = func(s string) error {
		o.mu.Lock()
		o.notified = append(o.notified, s)
		o.mu.Unlock()
		if o.onReady != nil && strings.Contains(s, "READY=1") {
			o.onReady()
		}
		return nil
	}
	return o
}

// A version on trial whose state.json cannot be read at its start is judged once it can:
// no restart is needed, and its window begins then.
func TestATrialThatCannotBeReadAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := newTrial(t, dir)
		text, err := os.ReadFile(o.c.Layout.StateFile())
		if err != nil {
			t.Fatal(err)
		}
		// Reading it fails in a way that says nothing about its content.
		unreadable.While(t, dir, o.c.Layout.StateFile(), func() {
			if res, _ := o.reconcile(t.Context()); res.State.Status != "" || o.unavailable() == nil {
				t.Errorf("status %s, unavailable: %v", res.State.Status, o.unavailable())
			}
		})
		if now, err := os.ReadFile(o.c.Layout.StateFile()); err != nil || !bytes.Equal(now, text) {
			t.Errorf("state.json changed: %s, %v", now, err)
		}
		time.Sleep(5 * o.c.Window) // a long time passes
		o.setAuthenticated(true)
		if err := o.retryReconcile(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if res, err := o.c.Layout.Read(); err != nil || res.State.Status != state.Stable || res.Tree.LastGood != o.c.version {
			t.Errorf("the version was not kept: %+v, %v", res.State, err)
		}
	})
}

func (o *onTrial) said(what string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Contains(strings.Join(o.notified, "\n"), what)
}

// run runs the trial, with script beside it, and returns how long it took.
func (o *onTrial) run(t *testing.T, script func()) (time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	if script != nil {
		wg.Go(script)
	}
	err := o.runTrial(ctx, o.res, o.startedAt)
	took := time.Since(o.startedAt)
	cancel()
	wg.Wait()
	return took, err
}

func about(t *testing.T, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+500*time.Millisecond {
		t.Errorf("took %v, want %v", got, want)
	}
}

func TestTrialIsKeptAfterTheHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := newTrial(t, dir)
		took, err := o.run(t, func() {
			time.Sleep(20 * time.Second)
			if !o.said("STATUS=" + o.c.version.String() + " is on trial, start 1 of 3\nREADY=1") {
				t.Errorf("the check passes, and systemd got %q", o.notified)
			}
			o.setAuthenticated(true)
		})
		if err != nil {
			t.Fatal(err)
		}
		about(t, took, 30*time.Second)
		res, err := o.c.Layout.Read()
		if err != nil || res.State.Status != state.Stable || res.Tree.LastGood != o.c.version {
			t.Errorf("got %+v, %v", res, err)
		}
		// The status text goes first: systemctl status shows it once systemctl start returns.
		if !o.said("READY=1\nSTATUS=" + o.c.version.String() + " runs") {
			t.Errorf("systemd got %q", o.notified)
		}
	})
}

// Once its check has passed, the start is recorded as ready: it counts no more if an operator
// ends it.
// An operator's acceptance waives the proof of the link, before the trial or during it. It does
// not waive the check, and it is of one trial.
// A start whose check passed for ten minutes without a break is recorded as calm: what was
// counted before it is forgotten.
// A release that migrates data at its first start has the time that its manifest names, in
// each start until its check first passes. Then it has a window.
func TestTrialEndsWithTheWindow(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script func(*onTrial)
		why    string
	}{
		"never reached": {func(*onTrial) {}, "the manager was never reached"},
		"flaps": {func(o *onTrial) {
			for range 6 {
				o.setAuthenticated(true)
				time.Sleep(9 * time.Second)
				o.setAuthenticated(false)
				time.Sleep(time.Second)
			}
		}, "it was not healthy for long enough"},
		"its check fails": {func(o *onTrial) { o.setAuthenticated(true) }, "its own check fails: no disk"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				o := newTrial(t, dir)
				if name == "its check fails" {
					o.c.Check = func(context.Context) error { return errors.New("no disk") }
				}
				took, err := o.run(t, func() { tt.script(o) })
				if err == nil || !strings.Contains(err.Error(), tt.why) {
					t.Errorf("got %v, want %q", err, tt.why)
				}
				about(t, min(took, 61*time.Second), 60*time.Second)
				if res, _ := o.c.Layout.Read(); res.State.Status != state.PendingHealth || o.said("READY=1") != (name != "its check fails") {
					t.Errorf("status %s, systemd got %q", res.State.Status, o.notified)
				}
			})
		})
	}
}

// A manager that answers 503 is not the new version's fault.
func TestTrialIsExtendedWhileTheManagerIsAtFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := newTrial(t, dir)
		took, err := o.run(t, func() {
			for range 10 { // 200 s: more than three windows
				o.setManagerFault(&busyError{why: "the manager answers 503"})
				time.Sleep(20 * time.Second)
			}
			o.setAuthenticated(true)
		})
		if err != nil {
			t.Fatal(err)
		}
		about(t, took, 210*time.Second)
		if !o.said("EXTEND_TIMEOUT_USEC=60000000") {
			t.Error("systemd got no extension")
		}
		entries, _, _ := o.c.Layout.Outbox().List()
		last := entries[len(entries)-1].Event
		if last.Code != release.Completed || !strings.Contains(last.Message, "the trial was extended: the manager answers 503") {
			t.Errorf("the event: %+v", last)
		}
	})
}

// A fault of the manager extends the trial by one window, and not without end.
func TestAnExtensionEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := newTrial(t, dir)
		took, err := o.run(t, func() {
			time.Sleep(30 * time.Second)
			o.setManagerFault(&busyError{why: "the manager answers 503"})
		})
		if err == nil {
			t.Error("a version that never authenticated was kept")
		}
		about(t, took, 90*time.Second)
	})
}

// On a full disk the watchdog rolls back by the link alone. The agent cannot record the
// rollback either, but it reports it to the manager. It records it once the disk can be
// written again.
func TestARollbackThatCannotBeRecordedIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := newTrial(t, dir)
		var full atomic.Bool
		o.c.Layout = o.c.Layout.On(fsutil.Disk{Seam: fullDisk{&full, "state.json"}})
		full.Store(true)
		if err := o.c.Layout.PointCurrent(release.MustVersion("1.0.0")); err != nil {
			t.Fatal(err)
		}

		o.c.version = release.MustVersion("1.0.0")
		res, _ := o.reconcile(t.Context())
		if res.State.Status != state.RolledBack || o.unavailable() == nil {
			t.Errorf("status %s, unusable: %v", res.State.Status, o.unavailable())
		}
		if len(o.memoryEvents) != 1 || o.memoryEvents[0].Event.Code != release.RolledBack {
			t.Fatalf("pending events: %+v", o.memoryEvents)
		}
		reported := o.memoryEvents[0].ID
		o.checkRoot(res, nil) // as a health beat does
		if o.unavailable() == nil {
			t.Error("an upgrade is possible on a root that could not be reconciled")
		}

		full.Store(false)
		if err := o.retryReconcile(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		entries, _, _ := o.c.Layout.Outbox().List()
		if n := len(entries); n == 0 || entries[n-1].ID != reported {
			t.Errorf("the outbox holds %+v, not %s", entries, reported)
		}
		if o.reconcileErr != nil || o.memoryEvents != nil {
			t.Error("the root still counts as unreconciled")
		}
	})
}
