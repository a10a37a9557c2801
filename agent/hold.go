package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

const (
	// holdWait is how long an agent waits for the one before it, which may still be
	// stopping.
	holdWait = 10 * time.Second
	// holdRetry is the pause between two attempts where the root could not be locked.
	holdRetry = time.Minute
)

// hold is the lock of an install root for the life of an agent: two agents would change
// the root against each other, and each would take the other's restarts for its own.
// The zero hold, and nil, have no problem.
type hold struct {
	root string
	mu   sync.Mutex
	lock *fsutil.Lock
	err  error // why there is no lock
}

// holdRoot takes the lock. If another process holds it, an agent that somebody starts by
// hand gets an error that names that process. One that systemd starts, and one whose
// root cannot be locked, run without the lock, and refuse upgrades.
//
// A second agent of the same process is refused at once, whoever started the process.
func holdRoot(ctx context.Context, l state.Layout, log *slog.Logger) (*hold, error) {
	if _, held := heldRoots.LoadOrStore(l.Root(), true); held {
		return nil, &typedError{fmt.Errorf("this process runs an agent on the install root %s already", l.Root()), ErrAlreadyRunning}
	}
	h, err := lockRoot(ctx, l, log)
	if err != nil {
		heldRoots.Delete(l.Root())
	}
	return h, err
}

// heldRoots are the install roots of the agents that run in this process.
var heldRoots sync.Map

func lockRoot(ctx context.Context, l state.Layout, log *slog.Logger) (*hold, error) {
	lock, err := fsutil.HoldFile(ctx, l.AgentLock(), 0)
	if errors.Is(err, fsutil.ErrLocked) {
		log.Info("waiting for another agent of this install root to stop", "held_by", lockedBy(l))
		lock, err = fsutil.HoldFile(ctx, l.AgentLock(), holdWait)
	}
	switch {
	case errors.Is(err, fsutil.ErrLocked) && bySystemd():
		// systemd started this process, and the watchdog counted the start: it must not fail
		// for a fault of another process. It runs, and refuses upgrades.
		err = anotherAgent(l)
		log.Error("upgrades are not possible", "error", err)
	case errors.Is(err, fsutil.ErrLocked):
		return nil, anotherAgent(l)
	case err != nil && ctx.Err() != nil:
		return nil, err
	case err != nil:
		err = unlocked(l, err)
		log.Error("upgrades are not possible", "error", err)
	}
	return &hold{root: l.Root(), lock: lock, err: err}, nil
}

// bySystemd reports whether systemd executed this process. One that somebody starts in a
// shell, or from cron, has inherited the id of another unit's start. (systemd sets
// SYSTEMD_EXEC_PID from 248 on.)
func bySystemd() bool {
	pid, known := os.LookupEnv("SYSTEMD_EXEC_PID")
	return os.Getenv("INVOCATION_ID") != "" && (!known || pid == strconv.Itoa(os.Getpid()))
}

func lockedBy(l state.Layout) string { return release.Foreign(fsutil.LockedBy(l.AgentLock()), 400) }

func anotherAgent(l state.Layout) error {
	return &typedError{fmt.Errorf("another agent runs on the install root %s: %s; stop that process first", l.Root(), lockedBy(l)), ErrAlreadyRunning}
}

func unlocked(l state.Layout, err error) error {
	return fmt.Errorf("the install root %s cannot be locked, so a second agent could change it at the same time: %w", l.Root(), err)
}

// problem returns why the root is not locked, or nil.
func (h *hold) problem() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

func (h *hold) release() {
	heldRoots.Delete(h.root)
	if h.lock != nil {
		h.lock.Unlock()
	}
}

// retry locks a root that could not be locked. It reports whether it is locked now.
func (h *hold) retry(ctx context.Context, l state.Layout) bool {
	lock, err := fsutil.HoldFile(ctx, l.AgentLock(), 0)
	if errors.Is(err, fsutil.ErrLocked) {
		err = anotherAgent(l)
	} else if err != nil {
		err = unlocked(l, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lock, h.err = lock, err
	return err == nil
}

// retryHold retries until the root is locked.
func (a *Agent) retryHold(ctx context.Context) error {
	tick := time.NewTicker(holdRetry)
	defer tick.Stop()
	for a.hold.problem() != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if a.hold.retry(ctx, a.c.Layout) {
			a.log.Info("the install root is locked now")
		}
		a.showUnavailable()
		wake(a.healthDue)
	}
	return nil
}
