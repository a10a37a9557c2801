package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
)

// Uninstall stops the service and removes its unit, and with purge also the install root.
// It can be repeated after a failure. Call Check first.
func (n *Node) Uninstall(ctx context.Context, purge bool) error {
	if purge {
		if err := n.mayPurge(ctx); err != nil {
			return err
		}
	}
	path := n.unitPath()
	_, err := os.Lstat(path)
	absent := errors.Is(err, fs.ErrNotExist)
	switch {
	case absent:
		n.report("%s does not exist", path)
		if err := n.removeBeside(ctx); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		booted := systemd.Booted() == nil
		if booted {
			if err := command(ctx, "systemctl", "disable", "--quiet", "--now", "--", n.service()); err != nil {
				return err
			}
		}
		if err := n.removeBeside(ctx); err != nil {
			return err
		}
		if err := (fsutil.Disk{}).Remove(path); err != nil {
			return err
		}
		if booted {
			if err := command(ctx, "systemctl", "daemon-reload"); err != nil {
				return err
			}
		}
		n.report("stopped %s and removed its unit", n.service())
	}
	if !purge {
		n.report("kept %s with its versions and config.toml; --purge removes it", n.Root)
		return nil
	}
	return n.purge(ctx)
}

// mayPurge returns an error unless the root is an install root, without a running agent in
// another unit.
func (n *Node) mayPurge(ctx context.Context) error {
	entries, err := os.ReadDir(n.real)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := state.At(n.real)
	if err != nil {
		return err
	}
	if !isRoot(l, entries) {
		links := ""
		for _, path := range replaceable(l) {
			if to, err := os.Readlink(path); err == nil {
				links += fmt.Sprintf("; %s is a link to %s, whose files may be left", filepath.Base(path), to)
			}
		}
		return fmt.Errorf("%s is not removed, because it is no install root: it has neither versions nor the config.toml of a service%s", n.Root, links)
	}
	c, err := configOf(n.real)
	if err != nil || c.Service.Unit == "" {
		return nil
	}
	if s, err := systemd.QueryState(ctx, AgentUnit(c)); err == nil && s.Active != "inactive" && s.Active != "failed" {
		return fmt.Errorf("%s belongs to %s, which is running: remove its units first, as docs/attach.md describes", n.Root, s.Unit)
	}
	return nil
}

// purge removes the root. A child process removes the content as the owner of the root,
// so that no link there misleads root. The rest is removed as root.
func (n *Node) purge(ctx context.Context) error {
	if _, err := os.Lstat(n.real); errors.Is(err, fs.ErrNotExist) {
		n.report("%s does not exist", n.Root)
		return nil
	}
	l, err := state.At(n.real)
	if err != nil {
		return err
	}
	workErr := n.child(ctx, Job{Root: n.real, Purge: true})
	disk := fsutil.Disk{}
	entries, err := os.ReadDir(n.real)
	if err != nil {
		return errors.Join(workErr, err)
	}
	errs := []error{workErr}
	mounted := isMount(n.real)
	left := 0
	for _, e := range entries {
		if mounted && e.Name() == "lost+found" { // belongs to the file system
			continue
		}
		path := filepath.Join(n.real, e.Name())
		if workErr != nil && e.Type() == fs.ModeSymlink && slices.Contains(replaceable(l), path) {
			continue // it names what could not be removed
		}
		// RemoveAll works on open directories below n.real, and follows no link.
		err := disk.Discard(path)
		if errors.Is(err, syscall.EBUSY) {
			if err = clearMount(l, path); err == nil {
				n.report("emptied %s and kept it, since it is a mount point", filepath.Join(n.Root, e.Name()))
				left++
			}
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	err = disk.Remove(n.real)
	switch {
	case errors.Is(err, syscall.EBUSY), mounted && err != nil:
		n.report("emptied %s and kept it, since it is a mount point (umount %s)", n.Root, n.real)
		return nil
	case left > 0 && err != nil:
		n.report("kept %s, with its mount points", n.Root)
		return nil
	case err != nil:
		return err
	}
	if n.real != filepath.Clean(n.Root) {
		if st, err := os.Lstat(n.Root); err == nil && st.Mode().Type() == fs.ModeSymlink {
			if err := disk.Remove(n.Root); err != nil {
				return err
			}
		}
	}
	n.report("removed %s; kept the user %s (userdel %s)", n.Root, n.User, n.User)
	return nil
}

// clearMount empties a file that is a mount point. The error says what is left in the
// file, or in the directory.
func clearMount(l state.Layout, path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode().IsRegular() {
		err = truncate(l.Disk(), path)
	}
	if isEmpty(path) {
		return nil
	}
	if !st.Mode().IsRegular() {
		at := cmp.Or(fsutil.MountPoint(path), path)
		return errors.Join(fmt.Errorf("%s is a mount point, and is not empty: remove its content, or run umount %s, and repeat the command", at, at), err)
	}
	holds := "its content"
	if l.IsSecret(path) {
		holds = "a secret"
	}
	return errors.Join(fmt.Errorf("%s is a mount point, and still holds %s: run umount %[1]s, and remove the file that it shows", path, holds), err)
}

// truncate sets the size of a file to 0.
func truncate(disk fsutil.Disk, path string) error {
	f, err := disk.CreateBy(path, func() (*os.File, error) {
		return os.OpenFile(path, os.O_WRONLY|nonblock|syscall.O_NOFOLLOW, 0)
	})
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(0), f.Sync(), f.Close())
}

// empty removes the content of the root, and what an edge-agent made in the directories
// and files that links in it point to. This process is the owner of the root.
func empty(l state.Layout) error {
	disk := l.Disk()
	entries, err := os.ReadDir(l.Root())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(l.Root(), e.Name())
		if e.Name() == "lost+found" { // the caller knows whether it belongs to the file system
			continue
		}
		if e.Type() == fs.ModeSymlink {
			if err := emptyLinked(l, path); err != nil {
				errs = append(errs, err)
				continue // the link stays, since it names what is left
			}
		}
		// Root removes the files of other owners afterwards.
		if err := disk.Discard(path); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EBUSY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// emptyLinked removes what an edge-agent made in the directory, or as the file, that a
// link of the root points to. The directory stays, since an administrator made it.
func emptyLinked(l state.Layout, path string) error {
	if !slices.Contains(replaceable(l), path) {
		return nil
	}
	disk := l.Disk()
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the link is dangling
	}
	if err != nil {
		to, _ := os.Readlink(path)
		return fmt.Errorf("%s is a link to %s, which could not be followed: %w; remove %s", path, to, err, to)
	}
	if slices.Contains(l.Files(), path) {
		if err := disk.Remove(real); err != nil {
			return fmt.Errorf("%s is a link, and the file that it points to could not be removed: %w; remove %s", path, err, real)
		}
		return nil
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return fmt.Errorf("%s is a link to %s, which could not be emptied: %w; remove its content", path, real, err)
	}
	var errs []error
	for _, e := range entries {
		if !ours(l, path, e.Name()) {
			continue
		}
		if err := disk.Discard(filepath.Join(real, e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("%s is a link: %w; remove %s", path, err, filepath.Join(real, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// ours reports whether a file of that name in dir, a directory of the root, may be an
// edge-agent's.
func ours(l state.Layout, dir, name string) bool {
	return l.Makes(dir, name) || dir == l.TrustDir() && verify.IsRenewalFile(name)
}
