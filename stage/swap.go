package stage

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
	"golang.org/x/sys/unix"
)

// Staged is a release that is complete on disk. Only Stage makes one.
type Staged struct {
	rel    verify.Release
	record func() error
	freed  <-chan struct{} // closed when the space of the download is free; nil: it was not there
}

// Recording returns st with what Swap and Shelve do right before their commit, under the
// root's lock. An error of it refuses them.
func (st Staged) Recording(record func() error) Staged { st.record = record; return st }

// wait returns once the space of the download is free.
func (st Staged) wait() { await(st.freed) }

// await waits until c is closed, if there is one.
func await(c <-chan struct{}) {
	if c != nil {
		<-c
	}
}

// remove removes a download that is no longer needed. freed is closed when its space is free: a disk
// that is mounted with the option discard takes 10 ms for 36 MB, and a swap that has space need not
// wait for it.
func (s *Stager) remove(path string) (freed <-chan struct{}, err error) {
	// While it is open, only its name goes.
	f, openErr := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	err = s.Layout.Disk().Remove(path)
	if errors.Is(err, fs.ErrNotExist) { // a clean-up job removed the directory meanwhile
		err = nil
	}
	if openErr != nil {
		return nil, err
	}
	space, e := fsutil.Free(s.Layout.Root())
	if e != nil || space.Bytes < reserve || space.Inodes < minInodes {
		f.Close()
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		f.Close()
		close(done)
	}()
	return done, err
}

// Version returns what was staged.
func (st Staged) Version() release.Version { return st.rel.Manifest().Version }

// Swap puts a staged release on trial: state.json first (the commit point),
// then previous, then current.
func Swap(ctx context.Context, l state.Layout, st Staged, tr state.Trial) (state.Result, error) {
	return st.commit(ctx, l, tr, "staged", func(s state.State, t state.Tree, tr state.Trial, now time.Time) (state.State, state.Tree) {
		s = state.Begin(s, tr, now)
		t.Previous, t.Current = s.Previous, tr.Target
		return s, t
	})
}

// Shelve leaves a staged release for an operator to apply.
func Shelve(ctx context.Context, l state.Layout, st Staged, tr state.Trial) (state.Result, error) {
	return st.commit(ctx, l, tr, "staged_manual", func(s state.State, t state.Tree, tr state.Trial, now time.Time) (state.State, state.Tree) {
		return state.Shelve(s, tr, now), t
	})
}

// ErrInstalled reports that a root has a version already.
var ErrInstalled = errors.New("a version is installed already")

// Install makes a staged release the first version of a root that has none. The version
// counts as good at once, because there is nothing to roll back to, and its floors
// hold from now on. If the root has another version by now, it returns ErrInstalled.
//
//	state.json (COMMIT), then last-good and current; repeating it completes it
func Install(ctx context.Context, l state.Layout, st Staged, tr state.Trial) (state.Result, error) {
	defer st.wait()
	tr, err := st.trial(l, tr)
	if err != nil {
		return state.Result{}, err
	}
	res, err := l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		if s.Status == state.PendingHealth || !t.Current.IsZero() && t.Current != tr.Target {
			return s, t, ErrInstalled
		}
		s = state.Install(s, tr, now)
		t.LastGood, t.Current = tr.Target, tr.Target
		return s, t, nil
	})
	return res, withDiskFull(err)
}

// trial completes tr with what the staged release says.
func (st Staged) trial(l state.Layout, tr state.Trial) (state.Trial, error) {
	if !st.rel.OK() {
		return tr, release.Errorf(release.Internal, "swap: nothing was staged")
	}
	tr.Target = st.Version()
	tr.RollbackFloor, tr.FloorSequence = floorOf(st.rel.Manifest(), func(v release.Version) uint64 { return SequenceOf(l, v) })
	return tr, nil
}

func (st Staged) commit(ctx context.Context, l state.Layout, tr state.Trial, outcome string,
	next func(state.State, state.Tree, state.Trial, time.Time) (state.State, state.Tree)) (state.Result, error) {
	defer st.wait()
	tr, err := st.trial(l, tr)
	if err != nil {
		return state.Result{}, err
	}
	res, err := l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		if s.Status == state.PendingHealth {
			switch {
			case !l.MayReplace(s):
				return s, t, release.Errorf(release.InProgress, "%s is on trial", s.Target)
			case tr.Target == s.Good:
				return s, t, release.Errorf(release.InProgress, "%s is what a rollback of %s returns to; roll back instead (edge-agent rollback)", s.Good, s.Target)
			case outcome != "staged": // its trial would have no end
				return s, t, release.Errorf(release.InProgress, "%s is on trial still", s.Target)
			case !l.ReadJudge(s).Completed:
				s = state.Supersede(s, tr.Target, now)
			}
		}
		// It was withdrawn meanwhile, and perhaps forgotten.
		if c, ok := s.Command(tr.CommandID); tr.CommandID != "" && !ok {
			return s, t, release.Errorf(release.Withdrawn, "command %s has ended, and is forgotten", tr.CommandID)
		} else if c.Done {
			return s, t, release.Errorf(cmp.Or(c.Code, release.InProgress), "command %s has ended: %s", c.ID, c.Error)
		}
		if t.Current.IsZero() {
			return s, t, release.Errorf(release.Internal, "swap: no version is installed under %s", l.Root())
		}
		if t.Current == tr.Target {
			return s, t, release.Errorf(release.InProgress, "an operator has put %s in place meanwhile; nothing is left to do", tr.Target)
		}
		if !t.Has(tr.Target) {
			return s, t, release.Errorf(release.Internal, "swap: %s is not on disk", tr.Target)
		}
		if st.record != nil {
			if err := st.record(); err != nil {
				return s, t, err
			}
		}
		s, t = next(s, t, tr, now)
		if tr.CommandID != "" {
			s = state.Succeed(s, tr.CommandID, outcome, now)
		}
		return s, t, nil
	})
	return res, withDiskFull(err)
}

// floorOf returns the floors that m sets once its version is healthy: the lowest version
// for a downgrade, and the sequence of that version's manifest, below which are
// earlier publications of it. m knows only its own sequence; installed returns that of
// an installed version, or 0.
func floorOf(m release.Manifest, installed func(release.Version) uint64) (release.Version, uint64) {
	switch m.RollbackFloor {
	case release.Version{}:
		return release.Version{}, 0
	case m.Version:
		return m.Version, m.Sequence
	}
	return m.RollbackFloor, installed(m.RollbackFloor)
}
