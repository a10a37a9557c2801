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

	"golang.org/x/sys/unix"
)

// Linked returns the directories outside the root that the agent writes to,
// because an administrator's links in the root point there, without links.
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

// Writable returns an error that names the first directory of the root, or the
// root, that this process may not write to. What is missing is no error.
func (l Layout) Writable() error {
	for _, dir := range []string{l.root, l.Versions(), l.Downloads(), l.OutboxDir()} {
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is not writable: %w", dir, err)
		}
		if _, err := l.resolve(dir); err != nil {
			return err
		}
	}
	return nil
}

// Narrow makes what is there the agent's alone, as far as this process owns it:
// versions of before made some of it for everyone to read. root is the most that
// the root's own mode may be: another user's service may have to run from it. It
// returns what it changed.
func (l Layout) Narrow(root fs.FileMode) (changed []string, err error) {
	var errs []error
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
		if now, err := os.Stat(x.path); err == nil && now.Mode() != st.Mode() {
			changed = append(changed, fmt.Sprintf("%s (%04o, now %04o)", x.path, st.Mode().Perm(), now.Mode().Perm()))
		}
	}
	return changed, errors.Join(errs...)
}

// narrow takes away what mode does not allow to others, as far as this process
// may: earlier versions made these directories for everyone to read.
func (l Layout) narrow(path string, st fs.FileInfo, mode fs.FileMode) error {
	if st.Mode().Perm()&^mode == 0 {
		return nil
	}
	err := l.disk.Chmod(path, st.Mode().Perm()&mode)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil // another's directory: doctor reports its owner
	}
	return err
}
