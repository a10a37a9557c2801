package stage

import (
	"context"
	"errors"
	"io/fs"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// minInodes must be free before a release is staged. Most releases have a few files; one
// with more fails cleanly when the inodes run out.
const minInodes = 64

// Limits for a tarball of unknown length.
const (
	reserve = 16 << 20 // bytes that stay free
	growth  = 1 << 20  // bytes that it may grow until the free space is read again
)

// need returns the bytes that must be free to stage a tarball of size bytes: three times
// its size, or its unpacked size and its own, if that is more.
func need(size, unpacked int64) uint64 {
	return uint64(max(3*size, size+unpacked))
}

// tarballSize is what is known of the size of a tarball.
type tarballSize struct {
	size     int64 // bytes; if open, at least so many
	unpacked int64 // bytes that the manifest says; 0: it does not
	have     int64 // bytes that are on the disk already
	open     bool  // the length is not known
}

// fits returns an error unless the rest of a tarball and its content fit. The two may be
// on different file systems.
func (s *Stager) fits(t tarballSize) error {
	downloads, versions := s.Layout.Downloads(), s.Layout.Versions()
	d, err := fsutil.Free(downloads)
	if errors.Is(err, fs.ErrNotExist) { // a clean-up job removed it
		if err = s.Layout.Make(); err == nil {
			d, err = fsutil.Free(downloads)
		}
	}
	if err != nil {
		return err
	}
	v, err := fsutil.Free(versions)
	if err != nil {
		return err
	}
	least, kind := uint64(0), "a tarball of"
	if t.open {
		least, kind = reserve+2*growth, "a tarball without a stated length, after"
	}
	enough := func(dir string, free fsutil.Space, have int64, n uint64) error {
		n = max(n, least+uint64(have))
		switch {
		case free.Bytes+uint64(have) < n:
			return release.Errorf(release.DiskFull, "%s has %d bytes free; %d are needed for %s %d bytes", dir, free.Bytes, n, kind, t.size)
		case free.Inodes < minInodes:
			return release.Errorf(release.DiskFull, "%s has %d inodes free; %d are needed", dir, free.Inodes, minInodes)
		}
		return nil
	}
	if d.Device == v.Device {
		return enough(versions, v, t.have, need(t.size, t.unpacked))
	}
	if err := enough(versions, v, 0, need(t.size, t.unpacked)-uint64(t.size)); err != nil {
		return err
	}
	return enough(downloads, d, t.have, uint64(t.size))
}

// makeRoom is fits, but removes versions that nothing needs, one at a time, while there is
// too little space.
func (s *Stager) makeRoom(ctx context.Context, t tarballSize) error {
	p := pruner{l: s.Layout, running: s.Running}
	for {
		err := s.fits(t)
		if s.KeepVersions == 0 || !isCode(err, release.DiskFull) {
			return err
		}
		if !p.removeOne(ctx, 0, release.Version{}) {
			if len(p.errs) > 0 {
				err = release.Errorf(release.DiskFull, "%w; %w", err, errors.Join(p.errs...))
			}
			return err
		}
	}
}

// pruneFor removes versions until the one to be staged is one of KeepVersions.
// What cannot be removed is no reason to refuse a release that still fits.
func (s *Stager) pruneFor(ctx context.Context, v release.Version) {
	if s.KeepVersions == 0 {
		return
	}
	p := pruner{l: s.Layout, running: s.Running}
	for p.removeOne(ctx, s.KeepVersions-1, v) {
	}
}
