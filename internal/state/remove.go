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

// removedPrefix starts the name of a tombstone: a file in versions/ whose version
// counts as absent, whatever is left of its directory.
const removedPrefix = ".removed-"

// retiredPrefix starts the name to which a version's directory is renamed before it is
// removed. Partial directories have other names, since "removed-" starts no version.
const retiredPrefix = PartialPrefix + "removed-"

func (l Layout) tombstone(v release.Version) string {
	return filepath.Join(l.Versions(), removedPrefix+v.String())
}

// Retire makes v absent, durably and in one step, and returns the function that frees
// its space. The caller must know that nothing needs v, and holds the root's lock
// (Locked). It calls free without that lock, and with the lock of staging, as the
// same version could be staged again meanwhile.
//
//	rename, fsync(versions)                 or, if that fails with EXDEV:
//	write a tombstone, fsync, fsync(versions)
//
// A version that cannot be removed (a mount point, an immutable or a read-only
// directory) is an error, and stays installed. Of a link to a directory only the link
// is removed. FinishRemovals removes what a crash before or in free leaves.
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
	return func() error { return l.removeBuried(v) }, nil
}

// Immovable reports whether err means that the file system can neither rename nor
// exchange a directory, as in a lower layer of an overlay.
func Immovable(err error) bool {
	for _, e := range []error{syscall.EXDEV, syscall.EINVAL, syscall.ENOSYS, syscall.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// removeBuried removes the directory of a version that has a tombstone, and then the
// tombstone.
func (l Layout) removeBuried(v release.Version) error {
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

// Removing reports whether v has a tombstone: v is absent, but its directory may still
// have to be removed.
func (l Layout) Removing(v release.Version) bool {
	_, err := os.Lstat(l.tombstone(v))
	return err == nil
}

// FinishRemovals completes the removals that a crash interrupted. The caller holds the
// lock of staging. It continues after an error, and returns all errors.
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
			errs = append(errs, l.removeBuried(v))
		} else if strings.HasPrefix(e.Name(), retiredPrefix) {
			errs = append(errs, l.disk.Discard(filepath.Join(l.Versions(), e.Name())))
		}
	}
	return errors.Join(errs...)
}

// removedVersion returns the version of a tombstone, and whether e is one.
func removedVersion(e fs.DirEntry) (release.Version, bool) {
	name, ok := strings.CutPrefix(e.Name(), removedPrefix)
	if !ok {
		return release.Version{}, false
	}
	v, err := release.ParseVersion(name)
	return v, err == nil
}

// absent reports whether err means that nothing is at a path, and not that it cannot be
// looked at now: too few descriptors, no permission, an error of the disk.
func absent(err error) bool {
	for _, e := range []error{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// installed returns the versions among the entries of versions/: the directories, and
// links to directories, that have no tombstone. A link that cannot be followed now
// counts as one of them. damaged are those that cannot be started.
func (l Layout) installed(entries []fs.DirEntry) (vs []release.Version, damaged map[release.Version]string) {
	removed := map[release.Version]bool{}
	for _, e := range entries {
		if v, ok := removedVersion(e); ok {
			removed[v] = true
		}
	}
	for _, e := range entries {
		v, err := release.ParseVersion(e.Name())
		if err != nil || removed[v] {
			continue
		}
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			st, err := os.Stat(l.Version(v))
			// What cannot be followed now may be a sound version.
			isDir = err == nil && st.IsDir() || err != nil && !absent(err)
		}
		if !isDir {
			continue
		}
		if why := l.Damage(v); why != "" {
			if damaged == nil {
				damaged = map[release.Version]string{}
			}
			damaged[v] = why
			continue
		}
		vs = append(vs, v)
	}
	return vs, damaged
}
