package stage

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// promote renames the complete directory to its final name. A directory of that name
// (installed by hand, or made from other bytes) is exchanged for it, so that links to
// it are never dangling. The old files stay, under the other name, while a process uses
// them. Where an exchange is impossible, promote removes the old directory first, if
// nothing needs it.
func (s *Stager) promote(ctx context.Context, v release.Version, dir string) error {
	l := s.Layout
	final := l.Version(v)
	_, err := os.Lstat(final)
	if errors.Is(err, fs.ErrNotExist) {
		return l.Disk().Rename(dir, final) // the version is complete from here
	}
	if err != nil {
		return err
	}
	err = l.Disk().Exchange(dir, final)
	if err == nil {
		s.discard(ctx, dir)
		return nil
	}
	if !state.Immovable(err) {
		return release.Errorf(release.Internal, "%s is in the way of the new files of %s and cannot be replaced: %w", final, v, blocked{err})
	}
	if err := s.removeInstalled(ctx, v, err); err != nil {
		return err
	}
	return l.Disk().Rename(dir, final) // the version is complete from here
}

// removeInstalled removes version v, which cause prevented from being exchanged. It
// renames the directory before it removes anything, so that a crash leaves no half
// version.
func (s *Stager) removeInstalled(ctx context.Context, v release.Version, cause error) error {
	l := s.Layout
	if err := unused(ctx, l, v); err != nil {
		return release.Errorf(release.Internal, "%s is installed from other files, which cannot be replaced now: %w", v, blocked{err})
	}
	var free func() error
	err := l.Locked(ctx, func() error {
		needed, err := s.inUse(v)
		if err != nil {
			return err
		}
		if needed {
			return inTheWay(v, cause)
		}
		free, err = l.Retire(v)
		return err
	})
	if err != nil {
		return err
	}
	// previous may still point there; the ordinary way sets it to another version.
	if _, err := l.Do(ctx, nil); err != nil && !errors.Is(err, state.ErrReportsPending) {
		return err
	}
	if err := free(); err != nil && l.Removing(v) {
		return err
	}
	return nil
}

// inUse reports whether v runs, is on trial, or is the target of a rollback. At rest the
// target of previous is not in use: another version can take its place.
func (s *Stager) inUse(v release.Version) (bool, error) {
	t, err := s.Layout.Tree()
	if err != nil {
		return false, err
	}
	res, err := s.Layout.Read()
	if err != nil {
		return false, err
	}
	used := []release.Version{t.Current, t.LastGood, res.Tree.Current, res.Tree.LastGood, res.State.Good, s.Running}
	if res.State.Status == state.PendingHealth {
		used = append(used, res.State.Target, res.State.Previous, t.Previous)
	}
	for _, u := range used {
		if u == v {
			return true, nil
		}
	}
	return false, nil
}

// replaceable refuses, before the download, a release whose version is installed from other
// files and cannot be replaced.
func (s *Stager) replaceable(ctx context.Context, v release.Version) error {
	if err := discardable(ctx, s.Layout.Partial(v)); err != nil {
		return release.Errorf(release.Internal, "the earlier files of %s cannot be removed: %w", v, err)
	}
	dir := s.Layout.Version(v)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if s.Layout.Removing(v) {
		return release.Errorf(release.Internal, "the earlier files of %s could not be removed; remove %s", v, dir)
	}
	if at := fsutil.MountPoint(dir); at != "" {
		return release.Errorf(release.Internal, "%s is installed from other files, which cannot be replaced: %s is a mount point; unmount it", v, at)
	}
	if !fsutil.Overlay(s.Layout.Versions()) {
		return nil
	}
	used, err := s.inUse(v)
	if err == nil && used {
		err = inTheWay(v, errors.New("the versions are on an overlay file system"))
	}
	return err
}

// blocked is why installed files cannot be replaced. Another attempt would meet them again.
type blocked struct{ error }

func (b blocked) Unwrap() error { return b.error }

func inTheWay(v release.Version, cause error) error {
	return release.Errorf(release.Internal, "%s is in use and installed from other files, which cannot be replaced at one instant here: %w; run another version first, or publish the release under a new version", v, blocked{cause})
}
