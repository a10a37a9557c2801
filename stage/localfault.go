package stage

import (
	"errors"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// localFault gives an error of the download's file its code; nil stays nil. Such an error is
// final: no answer of the host would change it.
func localFault(act string, err error) error {
	switch {
	case err == nil:
		return nil
	case fsutil.IsNoSpace(err):
		return withDiskFull(err)
	case errors.Is(err, unix.EFBIG):
		return release.Errorf(release.Internal, "%s the download: %w: the file system, or a limit of this process (LimitFSIZE= of the unit, ulimit -f), allows no file of that size; raise it", act, err)
	case errors.Is(err, unix.EROFS):
		return release.Errorf(release.Internal, "%s the download: %w: look for errors of the disk (journalctl -k), then remount it", act, err)
	case errors.Is(err, unix.EIO):
		return release.Errorf(release.Internal, "%s the download: %w: the disk is failing; look for its errors (journalctl -k)", act, err)
	}
	return release.Errorf(release.Internal, "%s the download: %w", act, err)
}

// roomFault gives an error of makeRoom its code, so that it is final.
func roomFault(err error) error {
	if isCode(err, release.DiskFull) {
		return err
	}
	return localFault("look for free space for", err)
}

// shortened is the final error of a download that another process shortened.
func shortened(when string) error {
	return release.Errorf(release.Internal, "another process on this machine shortened the download %s: exclude the install root from clean-up jobs", when)
}
