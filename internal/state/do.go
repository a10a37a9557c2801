package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// How long Do waits for another process, which holds the lock for a few fsyncs. On a worn flash
// disk each may take many seconds; who holds the lock is alive, since the kernel frees it with
// its process. At a start the service waits, too.
const (
	LockWait        = time.Minute
	LockWaitAtStart = 5 * time.Second
)

// holding counts the goroutines of this process that hold a lock file, or are about to give it
// up. For its own goroutines a process waits without a limit: on a slow disk one fsync takes
// longer than LockWait.
var holding struct {
	sync.Mutex
	paths map[string]int
}

func addHolding(path string, n int) (now int) {
	holding.Lock()
	defer holding.Unlock()
	if holding.paths == nil {
		holding.paths = make(map[string]int)
	}
	if now = holding.paths[path] + n; now == 0 {
		delete(holding.paths, path)
	} else {
		holding.paths[path] = now
	}
	return now
}

// Change is a transition, as Do applies it. It gets the reconciled state and links, and
// the time of the transition in UTC, and returns what is to be. With an error nothing
// changes beyond what Reconcile repaired.
type Change func(State, Tree, time.Time) (State, Tree, error)

// Result is the state and the links that Do left on disk.
type Result struct {
	State State
	Tree  Tree
	Notes []string // damage that was found and repaired
}

// Do locks the root, reconciles, applies change (which may be nil), and makes the
// result durable:
//
//	write state.json (COMMIT), then the links, then the outbox, then state.json
//	without the reports that the outbox has
//
// It writes nothing if nothing changes. After an error that follows the commit, or a
// crash, the next Do continues from there. After an error that is ErrReportsPending,
// only reports are left to be written.
func (l Layout) Do(ctx context.Context, change Change) (res Result, err error) {
	e := l.Locked(ctx, func() error {
		res, err = l.do(change)
		return nil
	})
	return res, errors.Join(e, err)
}

// Locked runs f while nobody else is in Do or Locked of the same root. It waits for another
// process for LockWait at most, and for this one until ctx is done. f must be short: it makes
// no request and runs no program.
//
// Where the file system has no locks (fsutil.ErrNoLock), only the watchdog (AtStart) runs
// f: it must be able to count a start, and no other process can be in Do there. Then
// the error is returned, too.
func (l Layout) Locked(ctx context.Context, f func() error) error {
	wait := LockWait
	if l.atStart {
		wait = LockWaitAtStart
	}
	lock, err := fsutil.LockFile(ctx, l.lockFile(), wait)
	for errors.Is(err, fsutil.ErrLocked) && ctx.Err() == nil && addHolding(l.lockFile(), 0) > 0 {
		lock, err = fsutil.LockFile(ctx, l.lockFile(), wait)
	}
	if st, e := os.Lstat(l.lockFile()); err != nil && e == nil && !st.Mode().IsRegular() {
		// Only a file can be locked, and without the lock nothing can be recorded.
		if e := l.aside(l.lockFile()); e != nil {
			return errors.Join(err, e)
		}
		lock, err = fsutil.LockFile(ctx, l.lockFile(), wait)
	}
	if errors.Is(err, fsutil.ErrNoLock) && l.atStart {
		return errors.Join(err, f())
	}
	if err != nil {
		return err
	}
	addHolding(l.lockFile(), 1)
	defer func() {
		lock.Unlock()
		addHolding(l.lockFile(), -1)
	}()
	return f()
}

// ErrReportsPending means that a transition is complete, but that its reports are still
// in state.json, and not yet in the outbox. The next Do tries again.
var ErrReportsPending = errors.New("the outbox could not be written")

func (l Layout) do(change Change) (Result, error) {
	s, note, err := l.load()
	if err != nil {
		return Result{}, err
	}
	var notes []string
	if note != "" {
		notes = append(notes, note)
	}
	have, err := l.Tree()
	if err != nil {
		return Result{Notes: notes}, err
	}
	was := s
	now := time.Now().UTC().Truncate(time.Millisecond)
	s, want, note := l.reconcile(s, have, now)
	if note != "" {
		notes = append(notes, note)
	}
	var refused error
	if change != nil {
		s2, t2, err := change(s, want, now)
		if err != nil {
			refused = err
		} else {
			s, want = s2, t2
		}
	}
	if s.Status == "" { // nothing is installed, so there is nothing to record
		return Result{State: s, Tree: want, Notes: notes}, refused
	}
	if s.Status == RolledBack && was.Status == PendingHealth { // repeated if it is interrupted before the commit
		s = s.reportFindings(l.Findings(was), l.failedItsCheck(was))
	}
	compared := false
	if s.Status == RolledBack {
		restored, err := l.RestoreCredentials(s)
		switch compared = err == nil; {
		case !compared:
			notes = append(notes, "credentials.json was not compared with the copy from before the trial, which the next start tries again: "+err.Error())
		case restored:
			notes = append(notes, fmt.Sprintf("credentials.json was changed or removed during the trial of %s; the copy from before it is back (what was there is in %s)", s.Target, l.path(replacedName)))
		}
	}
	s, err = l.apply(was, s, have, want)
	if compared && (err == nil || errors.Is(err, ErrReportsPending)) {
		if e := l.forgetCredentials(s); e != nil {
			notes = append(notes, "the copy of credentials.json was not removed: "+e.Error())
		}
	}
	return Result{State: s, Tree: want, Notes: notes}, errors.Join(refused, err)
}

func (l Layout) apply(was, s State, have, want Tree) (State, error) {
	if !reflect.DeepEqual(was, s) {
		// COMMIT: from here a restart carries on with s.
		if err := l.save(s); err != nil {
			return was, err
		}
	}
	if err := l.relink(have, want, s.Status); err != nil {
		return s, err
	}
	if len(s.PendingReports) == 0 {
		return s, nil
	}
	left := s
	left.PendingReports = nil
	var errs []error
	for _, e := range s.PendingReports {
		if err := l.Outbox().Put(e); err != nil { // one failure must not delay the other reports
			left.PendingReports, errs = append(left.PendingReports, e), append(errs, err)
		}
	}
	if len(left.PendingReports) == len(s.PendingReports) {
		return s, fmt.Errorf("%w: %w", ErrReportsPending, errors.Join(errs...))
	}
	if err := l.save(left); err != nil {
		return s, fmt.Errorf("%w: %w", ErrReportsPending, err)
	}
	if errs != nil {
		return left, fmt.Errorf("%w: %w", ErrReportsPending, errors.Join(errs...))
	}
	return left, nil
}

// reconcile is Reconcile with what this process knows of the running version.
func (l Layout) reconcile(s State, t Tree, now time.Time) (State, Tree, string) {
	t.Running, t.AtStart = l.running, l.atStart
	s, t, note := Reconcile(s, t, now)
	t.Running, t.AtStart = release.Version{}, false
	return s, t, note
}

// Sweep removes the temporary files that a crash left.
func (l Layout) Sweep(ctx context.Context) error {
	return l.Locked(ctx, func() error {
		for _, dir := range []string{l.root, l.Versions(), l.OutboxDir(), l.path(actionsName)} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				continue // nothing to remove
			}
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), fsutil.TempPrefix) || strings.HasPrefix(e.Name(), abilityPrefix) {
					if err := l.disk.Discard(filepath.Join(dir, e.Name())); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

// ErrUnreadable means that state.json cannot be read now: no permission, too few file
// descriptors, an error of the disk. Its content may be sound, so nothing is changed.
var ErrUnreadable = errors.New("state.json cannot be read now")

// Read returns the state and the links as the next Do would reconcile them. It takes
// no lock and changes nothing. The notes describe damage, and what the next start
// will do about it. With ErrUnreadable the result has only the links.
func (l Layout) Read() (Result, error) {
	if _, err := os.Stat(l.root); err != nil {
		return Result{}, err
	}
	t, err := l.Tree()
	if err != nil {
		return Result{}, err
	}
	r := Result{Tree: t}
	b, err := fsutil.ReadFile(l.StateFile(), MaxState)
	if err == nil {
		r.State, err = Decode(b)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.Notes = append(r.Notes, "there is no state.json yet")
	case notReadable(b, err):
		return r, fmt.Errorf("%w: %w", ErrUnreadable, err)
	case err != nil:
		r.Notes = append(r.Notes, fmt.Sprintf("state.json is unreadable: %v; the next start keeps it as state.json.corrupt and continues from the links", err))
	}
	s, want, note := l.reconcile(r.State, t, time.Now().UTC())
	if note != "" {
		if !reflect.DeepEqual(want, t) || !reflect.DeepEqual(s, r.State) { // the next start changes something
			note += " (at the next start)"
		}
		r.Notes = append(r.Notes, note)
	}
	r.State, r.Tree = s, want
	return r, nil
}

// notReadable reports whether err, of reading a file with the content b and of parsing it,
// says nothing about the content.
func notReadable(b []byte, err error) bool {
	return err != nil && b == nil && !errors.Is(err, fs.ErrNotExist) && !fsutil.WrongKind(err)
}

// load reads state.json. It renames a file that was read and does not parse to
// state.json.corrupt, and treats it as missing: it must not prevent a start. A file
// that cannot be read is left alone (ErrUnreadable). The caller holds the root's lock.
func (l Layout) load() (State, string, error) {
	path := l.StateFile()
	b, err := fsutil.ReadFile(path, MaxState)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, "", nil
	}
	if notReadable(b, err) {
		return State{}, "", fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if err == nil {
		var s State
		if s, err = Decode(b); err == nil {
			return s, "", nil
		}
	}
	aside := path + corruptSuffix
	note := fmt.Sprintf("state.json is unusable (%v); kept as %s", err, aside)
	if err := l.disk.Rename(path, aside); err != nil {
		note = fmt.Sprintf("%s, but that failed too: %v", note, err)
	}
	return State{}, note, nil
}

func (l Layout) save(s State) error {
	b, err := s.encode()
	if err != nil {
		return err
	}
	return l.disk.WriteFile(l.StateFile(), b, 0o600)
}
