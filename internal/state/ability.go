package state

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/bilbycast/edge-agent/fsutil"
)

// abilityPrefix starts the name of the directory where Try executes a program: one of a
// version that is not complete, as the self-check of a release does. Security modules
// decide by the path, so the name is one of a version.
const abilityPrefix = PartialPrefix + "0.0.0-ability-"

// Try tries, as the user of this process, what an upgrade, a trial and a rollback do in
// the root, and in each directory of it that is a link or a mount point (in TrustDir:
// TryTrust). program is the service's program in a version's directory; "": this process
// executes none.
//
// It returns a *fsutil.Inability for the first thing that is impossible. Another error
// means that something could not be tried now, as on a full disk, and says nothing
// about the root. Try leaves nothing behind; what a crash leaves, Sweep removes, and the
// next staging in Downloads.
//
// An exchange is not tried: staging does without (Immovable).
func (l Layout) Try(ctx context.Context, program string) error {
	err := l.disk.Try(ctx, l.root, append(slices.Clone(durable), fsutil.CanSymlink, fsutil.CanLock)...)
	cannot := func() bool { return errors.As(err, new(*fsutil.Inability)) }
	and := func(e error) {
		if err == nil || errors.As(e, new(*fsutil.Inability)) {
			err = e
		}
	}
	for _, x := range []struct {
		dir   string
		needs []fsutil.Ability
	}{
		{l.Versions(), append(slices.Clone(durable), fsutil.CanSymlink)}, // a release may contain links
		{l.Downloads(), []fsutil.Ability{fsutil.CanCreate, fsutil.CanChmod, fsutil.CanLock}},
		{l.OutboxDir(), durable},
	} {
		if dir := l.elsewhere(x.dir); dir != "" && !cannot() {
			and(l.disk.Try(ctx, dir, x.needs...))
		}
	}
	if program != "" && !cannot() {
		and(l.disk.TryExec(ctx, l.tryDir(), program))
	}
	return err
}

// durable is what the agent needs where it writes files.
var durable = []fsutil.Ability{fsutil.CanCreate, fsutil.CanChmod, fsutil.CanRename, fsutil.CanSync, fsutil.CanSyncDir}

// TryTrust tries whether KeepTrust can keep a renewed trust root, and returns errors as
// Try does. Upgrades do without, until their signatures need a newer root.
func (l Layout) TryTrust(ctx context.Context) error {
	needs := slices.Clone(durable)
	dir, err := l.resolve(l.TrustDir())
	if err != nil {
		return nil // other checks report a dangling link
	}
	if _, err := os.Lstat(dir); err == nil { // it is replaced as a whole
		needs = append(needs, fsutil.CanExchange)
	}
	return l.disk.Try(ctx, filepath.Dir(dir), needs...)
}

// tryDir returns the directory where a program is to be executed.
func (l Layout) tryDir() string {
	name := abilityPrefix + rand.Text()[:10]
	if st, err := os.Stat(l.Versions()); err != nil || !st.IsDir() { // nothing is installed yet
		return l.path(fsutil.TempPrefix + name)
	}
	return filepath.Join(l.Versions(), name)
}

// elsewhere returns the directory that the agent changes for dir, one of Dirs, if that may
// be on another file system than the root; otherwise "".
func (l Layout) elsewhere(dir string) string {
	st, err := os.Lstat(dir)
	if err != nil {
		return ""
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "" // other checks report a dangling link
	}
	if st.Mode().Type() != fs.ModeSymlink && fsutil.MountPoint(dir) == "" {
		return ""
	}
	if target, err := os.Stat(real); err != nil || !target.IsDir() {
		return ""
	}
	return real
}
