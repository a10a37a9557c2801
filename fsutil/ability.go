package fsutil

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Ability is something that a directory must be able to do for its user.
type Ability string

// The abilities that Try and TryExec try.
const (
	CanCreate   Ability = "create files"
	CanChmod    Ability = "restrict the modes of files"
	CanSymlink  Ability = "make symbolic links"
	CanRename   Ability = "replace a file or link by rename"
	CanExchange Ability = "exchange two directories"
	CanLock     Ability = "lock files"
	CanSync     Ability = "sync a file"
	CanSyncDir  Ability = "sync a directory"
	CanExec     Ability = "execute programs"
)

// Inability is an ability that a directory lacks, whenever one tries. No disk that is
// full, no lack of descriptors and no I/O error is an Inability: that may pass.
type Inability struct {
	Dir        string
	Ability    Ability
	FileSystem string // its type, as FileSystem returns it
	Err        error
}

func (e *Inability) Error() string { return e.Cause() + ": " + e.Remedy() }

func (e *Inability) Unwrap() error { return e.Err }

// Cause returns what is impossible, where, and what the kernel answered.
func (e *Inability) Cause() string {
	if errors.Is(e.Err, fs.ErrPermission) && (e.Ability == CanCreate || e.Ability == CanExec) {
		return fmt.Sprintf("the user of this process (uid %d) cannot %s in %s (file system %s): %v", os.Geteuid(), e.Ability, e.Dir, e.FileSystem, e.Err)
	}
	return fmt.Sprintf("the file system of %s (%s) cannot %s: %v", e.Dir, e.FileSystem, e.Ability, e.Err)
}

const localFileSystem = "use a local file system such as ext4, xfs, btrfs or f2fs for it"

// Remedy returns what an operator can do about it.
func (e *Inability) Remedy() string {
	switch {
	case errors.Is(e.Err, unix.EROFS):
		return "mount it read-write: mount -o remount,rw " + MountOf(e.Dir)
	case e.Ability == CanExec && NoExec(e.Dir):
		return fmt.Sprintf("mount it with exec: mount -o remount,exec %s (and remove noexec from its line in /etc/fstab)", MountOf(e.Dir))
	case e.Ability == CanExec:
		return mandatory() + ", and allow programs below " + e.Dir + ", also in directories whose names start with .partial-"
	case e.Ability == CanCreate && errors.Is(e.Err, unix.EACCES):
		return Denied(e.Dir, Write|Execute) + "; see the owners and modes: namei -l " + e.Dir
	case e.Ability == CanCreate && errors.Is(e.Err, fs.ErrPermission):
		return "see its owner and mode, and those above it: namei -l " + e.Dir
	case e.Ability == CanSymlink && errors.Is(e.Err, unix.ELOOP):
		return "mount it without nosymfollow: mount -o remount,symfollow " + MountOf(e.Dir)
	case e.Ability == CanLock:
		return lockRemedy
	}
	return localFileSystem
}

// lasting reports whether err means that a file system cannot do something, rather than
// not now. Every error that is not known to last may pass.
func lasting(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.EROFS, unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY,
		unix.EINVAL, unix.EXDEV, unix.ELOOP, unix.EBADF, unix.ENOLCK, errNoEffect} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

var errNoEffect = errors.New("the call succeeds, and changes nothing")

// unable returns err as an Inability if it lasts.
func unable(dir string, a Ability, err error) error {
	if lasting(err) {
		kind, _ := FileSystem(dir)
		return &Inability{Dir: dir, Ability: a, FileSystem: kind, Err: bare(err)}
	}
	return fmt.Errorf("whether %s can %s could not be tried now: %w", dir, a, err)
}

// bare returns err without operations and temporary paths.
func bare(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	var number unix.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}

// Try tries abilities in the directory dir, for the user of this process, in a temporary
// directory, which it removes. It returns an *Inability for the first one that dir
// lacks. Another error means that something could not be tried now, and says nothing
// about dir. Of a crash a directory is left whose name starts with TempPrefix.
func (d Disk) Try(ctx context.Context, dir string, abilities ...Ability) error {
	try := func() error {
		tmp := filepath.Join(dir, TempPrefix+rand.Text()[:10]+"-ability")
		if err := d.makeDir(tmp); err != nil {
			return unable(dir, CanCreate, err)
		}
		defer d.Discard(tmp)
		var first error
		for _, a := range abilities {
			err := d.tryOne(ctx, tmp, a)
			if err == nil {
				continue
			}
			if err = unable(dir, a, err); errors.As(err, new(*Inability)) {
				return err
			}
			if first == nil {
				first = err
			}
		}
		return first
	}
	err := try()
	if errors.Is(err, fs.ErrNotExist) { // a process that removes leftovers removed the directory
		err = try()
	}
	return err
}

func (d Disk) makeDir(dir string) error {
	return d.Do(Op{Kind: OpMkdir, Path: dir}, func() error { return os.Mkdir(dir, 0o700) })
}

// newFile creates a file with content, and nothing else: no fchmod, no fsync.
func (d Disk) newFile(path, content string) (*File, error) {
	f, err := d.CreateBy(path, func() (*os.File, error) {
		return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	})
	if err != nil {
		return nil, err
	}
	if _, err := f.Write([]byte(content)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// newFiles creates files, with their name as content.
func (d Disk) newFiles(dir string, names ...string) error {
	for _, name := range names {
		f, err := d.newFile(filepath.Join(dir, name), name)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tryOne tries one ability in the temporary directory dir. Each has files of its own.
func (d Disk) tryOne(ctx context.Context, dir string, a Ability) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	switch a {
	case CanCreate:
		return d.newFiles(dir, "file")
	case CanChmod:
		return d.tryChmod(dir)
	case CanSymlink:
		if err := d.newFiles(dir, "target"); err != nil {
			return err
		}
		if err := d.symlink("target", in("link")); err != nil {
			return err
		}
		_, err := os.Stat(in("link")) // follows it
		return err
	case CanRename:
		return d.tryRename(dir)
	case CanExchange:
		if err := errors.Join(d.makeDir(in("one")), d.makeDir(in("two"))); err != nil {
			return err
		}
		return d.exchange(in("one"), in("two"))
	case CanLock:
		lock, err := LockFile(ctx, in("lock"), 0)
		if err != nil {
			return err
		}
		return lock.Unlock()
	case CanSync:
		f, err := d.newFile(in("synced"), "content")
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	case CanSyncDir:
		return d.SyncDir(dir)
	}
	return fmt.Errorf("%q is no ability of Try", a)
}

func (d Disk) symlink(target, path string) error {
	return d.Do(Op{Kind: OpSymlink, Path: path, To: target}, func() error { return os.Symlink(target, path) })
}

// tryChmod makes a file executable, and then the owner's alone. Some file systems, as
// CIFS and NTFS without permissions, accept that and change nothing. A mode that is as
// narrow all the time will do.
func (d Disk) tryChmod(dir string) error {
	if err := d.newFiles(dir, "mode"); err != nil {
		return err
	}
	path := filepath.Join(dir, "mode")
	for _, want := range []struct{ mode, set, clear fs.FileMode }{{0o755, 0o700, 0}, {0o600, 0o600, 0o077}} {
		if err := d.Chmod(path, want.mode); err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if m := st.Mode().Perm(); m&want.set != want.set || m&want.clear != 0 {
			return fmt.Errorf("chmod %04o leaves %04o: %w", want.mode, m, errNoEffect)
		}
	}
	return nil
}

// tryRename renames a file over a file, a link over a link, and a directory.
func (d Disk) tryRename(dir string) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(d.newFiles(dir, "old", "new"), d.makeDir(in("directory"))); err != nil {
		return err
	}
	if err := d.rename(in("new"), in("old")); err != nil {
		return err
	}
	if err := d.rename(in("directory"), in("renamed")); err != nil {
		return err
	}
	// Without links CanSymlink reports that.
	if d.symlink("old", in("old-link")) != nil || d.symlink("new", in("new-link")) != nil {
		return nil
	}
	if err := d.rename(in("new-link"), in("old-link")); err != nil {
		return err
	}
	if to, err := os.Readlink(in("old-link")); err != nil || to != "new" {
		return errors.Join(fmt.Errorf("a link renamed over another: %w", errNoEffect), err)
	}
	return nil
}

// execTime bounds the program of TryExec, which normally does not run at all. On a slow device
// the fork alone takes seconds.
const execTime = time.Minute

// TryExec tries whether this user may execute a program in a directory. It makes the
// directory dir, with a file at program below, and removes dir. It returns errors as
// Try does; they name the directory above dir.
//
// The file is no program: the kernel asks the mount options and the security modules
// first, and then answers ENOEXEC. So nothing runs, whatever the processor, and no
// interpreter is needed.
func (d Disk) TryExec(ctx context.Context, dir, program string) error {
	try := func() error {
		defer d.Discard(dir)
		path := filepath.Join(dir, program)
		if err := d.Do(Op{Kind: OpMkdir, Path: filepath.Dir(path)}, func() error { return os.MkdirAll(filepath.Dir(path), 0o755) }); err != nil {
			return unable(filepath.Dir(dir), CanCreate, err)
		}
		// The first bytes are printable: for others the kernel would ask modprobe for a format.
		f, err := d.newFile(path, "edge-agent tries whether it may execute this file\n")
		if err != nil {
			return unable(filepath.Dir(dir), CanCreate, err)
		}
		if err := errors.Join(f.Close(), d.Chmod(path, 0o755)); err != nil {
			return unable(filepath.Dir(dir), CanChmod, err)
		}
		if err := execute(ctx, path); err != nil {
			return unable(filepath.Dir(dir), CanExec, err)
		}
		return nil
	}
	err := try()
	if errors.Is(err, fs.ErrNotExist) {
		err = try()
	}
	return err
}

// execute returns why path cannot be executed by this user, or nil.
func execute(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, execTime)
	defer cancel()
	for {
		cmd := exec.CommandContext(ctx, path)
		cmd.Env, cmd.Dir, cmd.WaitDelay = []string{}, "/", time.Second
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(""), io.Discard, io.Discard // nil needs /dev/null, whose denial says nothing about path
		err := cmd.Run()
		switch {
		case err == nil, errors.Is(err, unix.ENOEXEC), errors.As(err, new(*exec.ExitError)):
			return nil
		case !errors.Is(err, unix.ETXTBSY):
			return err
		}
		// A fork elsewhere in this process may still have the file open for writing for an
		// instant (golang.org/issue/22315).
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
