package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"golang.org/x/sys/unix"
)

// Linked returns the directories outside the root that the agent writes to because
// links of an administrator point there. The paths have no links.
func (l Layout) Linked() []string {
	root, err := filepath.EvalSymlinks(l.root)
	if err != nil {
		return nil
	}
	var dirs []string
	for _, dir := range l.Dirs() {
		to, err := filepath.EvalSymlinks(dir)
		if err != nil || strings.HasPrefix(to, root+"/") {
			continue
		}
		if dir == l.TrustDir() { // it is replaced as a whole: see KeepTrust
			to = filepath.Dir(to)
		}
		if !slices.Contains(dirs, to) {
			dirs = append(dirs, to)
		}
	}
	return dirs
}

// Writable returns an error that names the first directory, of the root and those in
// it, that this process may not write to. A missing directory is no error.
func (l Layout) Writable() error {
	for _, dir := range []string{l.root, l.Versions(), l.Downloads(), l.OutboxDir()} {
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil && !errors.Is(err, fs.ErrNotExist) {
			if errors.Is(err, unix.EACCES) {
				err = fmt.Errorf("%w: %s", err, fsutil.Denied(dir, fsutil.Write|fsutil.Execute))
			}
			return fmt.Errorf("%s is not writable: %w", dir, err)
		}
		if _, err := l.resolve(dir); err != nil {
			return err
		}
	}
	return nil
}

// Narrow removes the access of other users to the agent's files, as far as this process
// owns them: earlier versions made some readable for everyone. root is the widest
// mode of the root itself, from which another user's service may have to run. It
// returns a description of each change, and an error with the remedy for each path that
// other users can still access.
func (l Layout) Narrow(root fs.FileMode) (changed []string, errs []error) {
	for _, x := range []struct {
		path string
		mode fs.FileMode
	}{
		{l.root, root}, {l.Downloads(), 0o700}, {l.OutboxDir(), 0o700}, {l.TrustDir(), 0o700},
		{l.StateFile(), 0o600}, {l.CredentialsFile(), 0o600}, {l.startFile(), 0o600},
	} {
		st, err := os.Stat(x.path)
		if err != nil || !st.IsDir() && !st.Mode().IsRegular() || st.Mode().Perm()&^x.mode == 0 {
			continue
		}
		if err := l.narrow(x.path, st, x.mode); err != nil {
			errs = append(errs, err)
			continue
		}
		now, err := os.Stat(x.path)
		if err != nil {
			continue
		}
		if now.Mode() != st.Mode() {
			changed = append(changed, fmt.Sprintf("%s (%04o, now %04o)", x.path, st.Mode().Perm(), now.Mode().Perm()))
		}
		if mode := now.Mode().Perm(); mode&^x.mode != 0 { // another user's, or a file system without modes
			errs = append(errs, fmt.Errorf("%s has mode %04o, and this process could not change it: as root, run: chmod %o %s", x.path, mode, mode&x.mode, x.path))
		}
	}
	return changed, errs
}

// narrow removes the permissions of path that mode lacks, if this process may.
func (l Layout) narrow(path string, st fs.FileInfo, mode fs.FileMode) error {
	if st.Mode().Perm()&^mode == 0 {
		return nil
	}
	err := l.disk.Chmod(path, st.Mode().Perm()&mode)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil // another user's directory: doctor reports its owner
	}
	return err
}
