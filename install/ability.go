package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// tryRoot returns what the root cannot do for the user of this process, or nil. An
// attached service, whose program another user executes, is not installed by Install.
func tryRoot(ctx context.Context, l state.Layout) error {
	var cannot *fsutil.Inability
	if errors.As(l.Try(ctx, "edge-agent"), &cannot) {
		return cannot
	}
	return nil
}

// tryPlace refuses a file system on which no version can be installed, before anything is
// fetched or created. It tries in the root itself, which it creates for that and removes
// again: as its owner, or as root, where the user may not exist yet. Then the child
// process tries everything as the user.
func (n *Node) tryPlace(ctx context.Context) (err error) {
	disk := fsutil.Disk{}
	switch st, err := os.Lstat(n.real); {
	case err == nil && !ownedByRoot(st):
		return n.child(ctx, Job{Root: n.real})
	case err == nil: // only root can change what is in there
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	var missing []string // from the bottom up
	place := n.real
	for ; ; place = filepath.Dir(place) {
		if _, err := os.Lstat(place); err == nil {
			break
		}
		missing = append(missing, place)
	}
	var failed error
	for _, dir := range slices.Backward(missing) {
		// A directory with a file that another process created meanwhile stays.
		defer disk.Remove(dir)
		if failed = disk.Mkdir(dir, 0o755); failed != nil {
			break // perhaps place can tell why
		}
		place = dir
	}
	err = disk.Try(ctx, place, fsutil.CanCreate, fsutil.CanChmod, fsutil.CanSymlink, fsutil.CanRename, fsutil.CanLock, fsutil.CanSync, fsutil.CanSyncDir)
	var cannot *fsutil.Inability
	switch {
	case !errors.As(err, &cannot):
		return failed // what cannot be tried now, the installation itself reports
	case cannot.Ability == fsutil.CanCreate && errors.Is(cannot, fs.ErrPermission):
		return failed // root is nobody special there, as on NFS; the user's own try counts
	}
	return cannot
}

// fileSystem checks that the file systems of the root can do what upgrades need. It makes
// temporary files, which it removes.
func (d *doctor) fileSystem(ctx context.Context) {
	if d.failed("install root") {
		return // mounted read-only or noexec, or missing
	}
	program := d.c.Service.Binary
	if d.c.Service.Unit != "" { // another user executes it
		program = ""
	}
	var faults []fault
	err := d.l.Try(ctx, program)
	var cannot *fsutil.Inability
	switch {
	case err == nil, fsutil.IsNoSpace(err), errors.Is(err, fs.ErrNotExist): // other checks report it
	case !errors.As(err, &cannot):
		faults = append(faults, fault{err.Error(), "see the journal of the kernel (journalctl -k), and run doctor again"})
	case cannot.Ability == fsutil.CanCreate && errors.Is(cannot, fs.ErrPermission) && d.failed("owners"): // the reason
	default:
		faults = append(faults, fault{cannot.Cause(), cannot.Remedy()})
	}
	if err == nil && errors.As(d.l.TryTrust(ctx), &cannot) {
		faults = append(faults, fault{"a newer trust root cannot be kept: " + cannot.Cause(),
			fmt.Sprintf("make %s a link to a directory of %s on a local file system, in a directory where that user may create others", d.l.TrustDir(), systemd.UserName(d.user))})
	}
	d.check("file system", faults...)
}
