package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// removedPrefix starts the name of a tombstone: a file in versions/ that makes
// the version it names absent, whatever is left of its directory.
const removedPrefix = ".removed-"

// retiredPrefix starts the name that a version's directory gets before it is
// removed. No partial directory has such a name, as it is no version.
const retiredPrefix = PartialPrefix + "removed-"

func (l Layout) tombstone(v release.Version) string {
	return filepath.Join(l.Versions(), removedPrefix+v.String())
}

// Retire makes v absent, durably and at one instant, and returns the function
// that then frees its space. The caller holds the root's lock (Locked) for
// Retire, and must know that nothing needs v. It calls free without that lock,
// but while it holds the lock of staging: another v could be put in place.
//
//	rename, fsync(versions)                 or, if that fails with EXDEV:
//	write a tombstone, fsync, fsync(versions)
//
// What cannot be removed (a mount point, an immutable or a read-only entry) is
// an error, and stays a version. A link to a directory loses only the link. A
// crash before free, or in it, leaves what FinishRemovals removes.
func (l Layout) Retire(v release.Version) (free func() error, err error) {
	dir, retired := l.Version(v), filepath.Join(l.Versions(), retiredPrefix+v.String())
	if at := fsutil.MountPoint(dir); at != "" {
		return nil, fmt.Errorf("remove version %s: %s is a mount point", v, at)
	}
	if err := l.disk.Discard(retired); err != nil {
		return nil, fmt.Errorf("remove version %s: %w", v, err)
	}
	err = l.disk.Rename(dir, retired)
	if err == nil {
		return func() error { return l.disk.Discard(retired) }, nil
	}
	if !Immovable(err) {
		return nil, fmt.Errorf("remove version %s: %w", v, err)
	}
	if err := l.disk.WriteFile(l.tombstone(v), nil, 0o644); err != nil {
		return nil, fmt.Errorf("remove version %s: %w", v, err)
	}
	return func() error { return l.bury(v) }, nil
}

// Immovable reports whether err says that a directory cannot be renamed or
// exchanged on its file system at all, as in a lower layer of an overlay.
func Immovable(err error) bool {
	for _, e := range []error{syscall.EXDEV, syscall.EINVAL, syscall.ENOSYS, syscall.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// bury removes the directory of a version that has a tombstone, and then the
// tombstone.
func (l Layout) bury(v release.Version) error {
	if at := fsutil.MountPoint(l.Version(v)); at != "" {
		return fmt.Errorf("remove version %s: %s is a mount point", v, at)
	}
	if err := l.disk.Discard(l.Version(v)); err != nil {
		return fmt.Errorf("remove version %s: %w", v, err)
	}
	// The removal must be on disk before the tombstone goes.
	if err := l.disk.SyncDir(l.Versions()); err != nil {
		return err
	}
	return l.disk.Remove(l.tombstone(v))
}

// Removing reports whether v has a tombstone: it is absent, and what is left of
// its directory is still to be removed.
func (l Layout) Removing(v release.Version) bool {
	_, err := os.Lstat(l.tombstone(v))
	return err == nil
}

// FinishRemovals removes what a crash left of versions that were being
// removed. The caller holds the lock of staging. It continues after errors.
func (l Layout) FinishRemovals() error {
	entries, err := os.ReadDir(l.Versions())
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		if v, ok := removedVersion(e); ok {
			errs = append(errs, l.bury(v))
		} else if strings.HasPrefix(e.Name(), retiredPrefix) {
			errs = append(errs, l.disk.Discard(filepath.Join(l.Versions(), e.Name())))
		}
	}
	return errors.Join(errs...)
}

func removedVersion(e fs.DirEntry) (release.Version, bool) {
	name, ok := strings.CutPrefix(e.Name(), removedPrefix)
	if !ok {
		return release.Version{}, false
	}
	v, err := release.ParseVersion(name)
	return v, err == nil
}

// installed returns the versions among the entries of versions/: directories,
// and links of an administrator to one, without a tombstone.
func (l Layout) installed(entries []fs.DirEntry) []release.Version {
	removed := map[release.Version]bool{}
	for _, e := range entries {
		if v, ok := removedVersion(e); ok {
			removed[v] = true
		}
	}
	var vs []release.Version
	for _, e := range entries {
		v, err := release.ParseVersion(e.Name())
		if err != nil || removed[v] {
			continue
		}
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			st, err := os.Stat(l.Version(v))
			isDir = err == nil && st.IsDir()
		}
		if isDir {
			vs = append(vs, v)
		}
	}
	return vs
}
