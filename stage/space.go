package stage

import (
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// minInodes must be free before a release is staged. Most have a handful of
// files; one with more still fails cleanly when they run out.
const minInodes = 64

// need is what must be free to stage a tarball of size bytes: three times its
// size, or what it unpacks to and the tarball itself, if that is more.
func need(size, unpacked int64) uint64 {
	return uint64(max(3*size, size+unpacked))
}

// checkSpace says whether the rest of a tarball of size bytes, of which have are
// on the disk already, and what is in it, will fit.
func (s *Stager) checkSpace(size, unpacked, have int64) error {
	free, err := fsutil.Free(s.Layout.Root())
	if err != nil {
		return err
	}
	if n := need(size, unpacked); free.Bytes+uint64(have) < n {
		return release.Errorf(release.DiskFull, "%s has %d bytes free; %d are needed for a tarball of %d bytes", s.Layout.Root(), free.Bytes, n, size)
	}
	if free.Inodes < minInodes {
		return release.Errorf(release.DiskFull, "%s has %d inodes free; %d are needed", s.Layout.Root(), free.Inodes, minInodes)
	}
	return nil
}
