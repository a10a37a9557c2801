package state

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// Layout is the install root of one service. Its links are relative, so that the root
// can be moved.
//
//	current   -> versions/1.5.0     the version that systemd starts
//	previous  -> versions/1.4.2     the version that a rollback returns to
//	last-good -> versions/1.4.2     the newest version that proved healthy
//	versions/1.5.0/                 complete, synced, never written again
//	versions/.partial-1.6.0/        being extracted
//	downloads/<sha256>.unverified   being downloaded; resumable
//	downloads/<sha256>.plain.unverified   a form of that tarball's release was wrong; see stage
//	state.json, outbox/, config.toml, credentials.json, .lock
//	watchdog.json                   the start before which a watchdog last ran
//	watchdog.row                    how many starts in a row ended quickly
//	trial/                          what is known of a version on trial
//	trust/                          a renewed trust root, with its proof
//	restart                         in attached mode: requests a restart of the service
//
// The root, and each directory in it, may be a mount point, or a symbolic link that
// an administrator made.
type Layout struct {
	root    string
	disk    fsutil.Disk
	running release.Version // see RunningAs
	atStart bool            // see AtStart
	program string          // see WithProgram
	group   bool            // see KeepGroup
}

// At returns the layout of root, which must be an absolute path. It reads nothing.
func At(root string) (Layout, error) {
	if !filepath.IsAbs(root) {
		return Layout{}, fmt.Errorf("install root %q is not an absolute path", root)
	}
	return Layout{root: filepath.Clean(root)}, nil
}

// On returns the layout that makes every change through d.
func (l Layout) On(d fsutil.Disk) Layout { l.disk = d; return l }

// RunningAs returns the layout for a process that is version v of the service.
// Reconcile then makes no other version last-good that never proved healthy.
func (l Layout) RunningAs(v release.Version) Layout { l.running = v; return l }

// AtStart returns the layout for the watchdog, which runs while no version does. It
// alone may choose a version that never proved healthy, if there is no other.
func (l Layout) AtStart() Layout { l.atStart = true; return l }

// Disk returns what every change in the root goes through.
func (l Layout) Disk() fsutil.Disk { return l.disk }

// KeepTrust replaces the content of TrustDir by files. A crash leaves all old files or
// all new ones. It fails, and changes nothing, where the directory cannot be
// exchanged, as on a mount point. The caller holds the root's lock.
func (l Layout) KeepTrust(files map[string][]byte) error {
	dir, err := l.resolve(l.TrustDir())
	if err != nil {
		return err
	}
	fresh := filepath.Join(filepath.Dir(dir), trustNewName)
	if err := l.disk.Discard(fresh); err != nil {
		return err
	}
	if err := l.disk.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	for name, b := range files {
		if err := l.disk.WriteFile(filepath.Join(fresh, name), b, 0o600); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return l.disk.Rename(fresh, dir)
	}
	if err := l.disk.Exchange(fresh, dir); err != nil {
		return errors.Join(fmt.Errorf("replace %s in one step: %w (it must be an ordinary directory, on the file system of the directory that it is in)", dir, err), l.disk.Discard(fresh))
	}
	return l.disk.Discard(fresh)
}

// resolve follows the symbolic links of path, which need not exist. A dangling link
// is an error: perhaps its target is not mounted yet.
func (l Layout) resolve(path string) (string, error) {
	to, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, e := os.Lstat(path); errors.Is(e, fs.ErrNotExist) {
			return path, nil
		}
		return "", dangling(path)
	}
	return to, err
}

func dangling(path string) error {
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is a link to %s, which does not exist; mount or create it, or remove the link", path, target)
}

// Downloaded returns the size of all unverified downloads, in bytes.
func (l Layout) Downloaded() int64 {
	entries, err := os.ReadDir(l.Downloads())
	if err != nil {
		return 0
	}
	var n int64
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && strings.HasSuffix(e.Name(), UnverifiedSuffix) {
			n += st.Size()
		}
	}
	return n
}

// Make creates the directories that an upgrade writes to. The service runs from
// versions/; only the agent may enter the others. A file in the place of a directory
// is renamed.
func (l Layout) Make() error {
	return errors.Join(l.mkdir(l.Versions(), 0o755), l.mkdir(l.Downloads(), 0o700), l.mkdir(l.OutboxDir(), 0o700))
}

// mkdir creates dir, or narrows the mode of 0700. A link to a directory counts as one.
// A file in its place is renamed.
func (l Layout) mkdir(dir string, mode fs.FileMode) error {
	st, err := os.Stat(dir)
	if err == nil && st.IsDir() {
		if mode == 0o700 {
			return l.narrow(dir, st, mode)
		}
		return nil
	}
	switch lst, lerr := os.Lstat(dir); {
	case lerr != nil: // nothing is there
	case lst.Mode()&fs.ModeSymlink != 0 && errors.Is(err, fs.ErrNotExist):
		return dangling(dir)
	case lst.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a link to something that is not a directory: %w", dir, cmp.Or(err, error(syscall.ENOTDIR)))
	default:
		if err := l.aside(dir); err != nil {
			return err
		}
	}
	return l.disk.Mkdir(dir, mode)
}

// aside renames a file that must not be at path to an unused name.
func (l Layout) aside(path string) error {
	return l.disk.Rename(path, path+corruptSuffix+"-"+rand.Text()[:8])
}

// Tree reads the links and lists the complete versions. A link that is no link to a
// version counts as missing. It is an error if versions/ or a link cannot be read now.
func (l Layout) Tree() (Tree, error) {
	var t Tree
	entries, err := os.ReadDir(l.Versions())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	t.Versions, t.Damaged = l.installed(entries)
	sort.Slice(t.Versions, func(i, j int) bool {
		a, b := t.Versions[i], t.Versions[j]
		if c := b.Compare(a); c != 0 {
			return c < 0
		}
		return b.String() < a.String()
	})
	for _, link := range []struct {
		path string
		to   *release.Version
	}{{l.Current(), &t.Current}, {l.Previous(), &t.Previous}, {l.LastGood(), &t.LastGood}} {
		v, err := l.linkedVersion(link.path)
		if err != nil {
			return Tree{}, err
		}
		if t.Has(v) {
			*link.to = v
		} else if t.Damaged[v] != "" && link.path == l.Current() {
			t.DamagedCurrent = v
		}
	}
	return t, nil
}

// linkedVersion returns the version in versions/ that the link at path points to, by a
// relative or an absolute path, and through the links that an administrator made. It
// may not be there. An error means that this cannot be told now.
func (l Layout) linkedVersion(path string) (release.Version, error) {
	target, err := os.Readlink(path)
	if err != nil && (absent(err) || errors.Is(err, syscall.EINVAL)) { // it is no link
		return release.Version{}, nil
	}
	if err != nil {
		return release.Version{}, err
	}
	if !filepath.IsAbs(target) {
		target = l.path(target)
	}
	dir, base := filepath.Split(filepath.Clean(target))
	v, err := release.ParseVersion(base)
	if err != nil {
		return release.Version{}, nil
	}
	if same, err := sameDir(dir, l.Versions()); err != nil || !same {
		return release.Version{}, err
	}
	return v, nil
}

// sameDir reports whether two paths are one directory. One that is absent is not.
func sameDir(a, b string) (bool, error) {
	if filepath.Clean(a) == b {
		return true, nil
	}
	sa, err := os.Stat(a)
	if err == nil {
		var sb fs.FileInfo
		if sb, err = os.Stat(b); err == nil {
			return os.SameFile(sa, sb), nil
		}
	}
	if absent(err) {
		err = nil
	}
	return false, err
}

// PointCurrent points the link current to v, which must be on disk, and changes
// nothing else. The watchdog uses it where state.json cannot be written. If previous
// points to v, it becomes current: the rename needs neither a block nor an inode, and
// the missing link tells Reconcile later that a trial was rolled back.
func (l Layout) PointCurrent(v release.Version) error {
	t, err := l.Tree()
	if err != nil {
		return err
	}
	if !t.Has(v) {
		return fmt.Errorf("version %s is not on disk", v)
	}
	if st, err := os.Lstat(l.Current()); t.Previous == v && (err != nil || !st.IsDir()) {
		return l.disk.Rename(l.Previous(), l.Current())
	}
	return l.point(l.Current(), v)
}

// relink changes the links in which want differs from have. When a trial begins,
// previous comes first, so that a crash leaves no new current without its previous
// version. Otherwise current comes first, while previous can still be renamed to it
// (see PointCurrent).
//
// Without a trial nothing depends on previous. So a failure to change that link, as on
// a full disk, is no error; the next Do tries again.
func (l Layout) relink(have, want Tree, status Status) error {
	links := []struct {
		path       string
		have, want release.Version
	}{
		{l.Previous(), have.Previous, want.Previous},
		{l.Current(), have.Current, want.Current},
		{l.LastGood(), have.LastGood, want.LastGood},
	}
	if status != PendingHealth {
		links[0], links[1], links[2] = links[1], links[2], links[0]
	}
	for _, x := range links {
		if x.want.IsZero() || x.have == x.want {
			continue
		}
		if err := l.point(x.path, x.want); err != nil && (x.path != l.Previous() || status == PendingHealth) {
			return err
		}
	}
	return nil
}

// point makes the link at path point to v.
func (l Layout) point(path string, v release.Version) error {
	if st, err := os.Lstat(path); err == nil && st.IsDir() { // a link cannot be renamed over it
		if err := l.aside(path); err != nil {
			return err
		}
	}
	return l.disk.Symlink(linkTarget(v), path)
}
