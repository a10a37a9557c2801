package stage

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Prune removes versions until keep are left: failed and superseded ones first, then the
// oldest. It keeps versions that a link points to, that the state needs, or that a
// process uses, whoever's it is. It skips what it cannot remove, and joins the errors; a
// version that is kept only because a process uses it is one of them. While a release
// is being staged it does nothing, because Stage prunes.
func Prune(ctx context.Context, l state.Layout, keep int, running release.Version) error {
	if _, err := os.Stat(l.Downloads()); err == nil { // otherwise nothing was ever staged here
		unlock, err := lockStaging(ctx, l, time.Second)
		if errors.Is(err, fsutil.ErrLocked) {
			return nil
		}
		if err != nil {
			return err
		}
		defer unlock()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p := pruner{l: l, running: running}
	for p.removeOne(ctx, keep, release.Version{}) {
	}
	return errors.Join(p.errs...)
}

// pruner removes versions, one at a time. Its user holds the lock of staging.
type pruner struct {
	l       state.Layout
	running release.Version
	skip    map[release.Version]bool // that could not be removed
	errs    []error
}

// removeOne removes the version that is needed least, if there are more than keep besides
// not. It reports whether it removed one. It skips a version that a process uses, which
// counts as one of those that are kept.
func (p *pruner) removeOne(ctx context.Context, keep int, not release.Version) bool {
	for {
		v, err := p.next(keep, not)
		if err != nil {
			p.errs = append(p.errs, err)
		}
		if v.IsZero() {
			return false
		}
		// Without the root's lock: there may be many processes.
		if err := unused(ctx, p.l, v); err != nil {
			p.failed(v, err)
			continue
		}
		var free func() error
		err = p.l.Locked(ctx, func() error {
			// The links may have changed meanwhile.
			if now, err := p.next(keep, not); err != nil || now != v {
				return err
			}
			var err error
			if free, err = p.l.Retire(v); err != nil {
				p.failed(v, err)
			}
			return nil
		})
		if err != nil {
			p.errs = append(p.errs, err)
			return false
		}
		if free == nil {
			continue
		}
		// Without the root's lock: removing thousands of files may take long, and the watchdog of
		// the next start must not wait.
		if err := free(); err != nil {
			p.errs = append(p.errs, err)
		}
		return true
	}
}

// next returns the version that removeOne would remove; the zero Version if there is
// none.
func (p *pruner) next(keep int, not release.Version) (release.Version, error) {
	t, err := p.l.Tree()
	if err != nil {
		return release.Version{}, err
	}
	res, err := p.l.Read()
	if err != nil {
		return release.Version{}, err
	}
	needed := neededBy(t, res, p.running)
	others := slices.DeleteFunc(append(slices.Clone(t.Versions), slices.Collect(maps.Keys(t.Damaged))...), func(v release.Version) bool { return v == not })
	if len(others) <= keep {
		return release.Version{}, nil
	}
	for _, v := range leastNeeded(t, res.State) {
		if !needed[v] && !p.skip[v] && (keep == 0 || v != not) {
			return v, nil
		}
	}
	return release.Version{}, nil
}

func (p *pruner) failed(v release.Version, err error) {
	if p.skip == nil {
		p.skip = map[release.Version]bool{}
	}
	p.skip[v] = true
	p.errs = append(p.errs, err)
}

// neededBy returns the versions that must stay: the targets of the links now and after
// they are reconciled, those that the state names, and the running one.
func neededBy(t state.Tree, res state.Result, running release.Version) map[release.Version]bool {
	needed := map[release.Version]bool{
		t.Current: true, t.Previous: true, t.LastGood: true,
		res.Tree.Current: true, res.Tree.Previous: true, res.Tree.LastGood: true,
		res.State.Good: true, res.State.Previous: true, running: true,
	}
	failed := res.State.Target
	if res.State.Status != state.RolledBack {
		needed[failed] = true
	} else if failed != t.Current && failed != t.LastGood && failed != running {
		// previous points to a failed version only because there is no other one.
		delete(needed, failed)
	}
	return needed
}

// leastNeeded returns the versions of t in the order in which they may be removed: those
// that cannot be started, then those that failed or were superseded before they proved healthy, as
// far as the state remembers, then the others; the oldest first in both groups.
func leastNeeded(t state.Tree, s state.State) []release.Version {
	staged, ran := map[release.Version]bool{}, map[release.Version]bool{s.Good: true, s.Previous: true}
	for _, c := range s.Commands {
		if c.Status == "staged" || c.Status == "staged_manual" {
			staged[c.Version] = true
		}
		if c.Code != release.InProgress { // no trial ran, so the running version had proved healthy
			ran[c.From] = true
		}
	}
	unproved := func(v release.Version) bool {
		return s.Status == state.RolledBack && v == s.Target || !ran[v] && (staged[v] || v.Compare(s.Good) > 0)
	}
	first, rest := slices.Collect(maps.Keys(t.Damaged)), []release.Version(nil)
	for _, v := range slices.Backward(t.Versions) {
		if unproved(v) {
			first = append(first, v)
		} else {
			rest = append(rest, v)
		}
	}
	return append(first, rest...)
}
