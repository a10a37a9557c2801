package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

var (
	errLonger  = errors.New("the server sends more")
	errShorter = errors.New("the connection ended")
	errChanged = errors.New("another process shortened the download, which begins again: exclude the install root from clean-up jobs")
)

// beginAgain restarts a download that err says was shortened. It is final if that happened
// Stager.Tries times: a job that shortens it each time would never let it end.
func (d *download) beginAgain(err error) error {
	if !errors.Is(err, errChanged) {
		return err
	}
	if err := d.restart(); err != nil {
		return err
	}
	if d.shortened++; d.shortened >= d.s.Tries {
		return shortened(fmt.Sprintf("%d times", d.shortened))
	}
	return err
}

// unpackFault returns err, of unpacking, or that another process shortened the file: what was
// unpacked may have been read at the wrong place.
func (d *download) unpackFault(err error) error {
	if err == nil || fsutil.IsNoSpace(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if st, e := d.f.Stat(); d.chunks != nil && d.shortened > 0 || e == nil && st.Size() < d.have {
		return shortened("while it was unpacked")
	}
	return err
}

// downloadAhead is how many bytes of a download wait until it is appended, at most: with more it
// is no faster.
const downloadAhead = 128 << 10

// downloadEarly is after how many bytes of a chunk the kernel begins to write it: the next chunk
// but one waits for its sync.
const downloadEarly = 256 << 10

// copy appends body, which ends at byte end of the tarball; 0: the end is not known.
func (d *download) copy(ctx context.Context, end int64, body io.Reader) error {
	total := max(d.limit, d.total)
	if d.limit == 0 && total > 0 {
		if err := d.s.makeRoom(ctx, tarballSize{size: total, unpacked: d.form.unpacked, have: d.have}); err != nil {
			return roomFault(err)
		}
	}
	most := end
	if end == 0 {
		most = release.MaxTarball
	}
	if err := fsutil.Reserve(d.f.File, total); err != nil {
		return localFault("reserve space for", err)
	}
	file := &toDisk{early: early{f: d.f, every: math.MaxInt64, n: d.have, done: d.have}, ctx: ctx, d: d, total: total}
	if d.syncsChunks() {
		file.every = downloadEarly
	}
	var w io.Writer = file
	if d.chunks != nil {
		w = &byChunk{d, w}
	}
	// TLS returns 16 KiB at most, and each write takes several system calls.
	from := newAhead(io.LimitReader(body, most-d.have), downloadAhead, false)
	d.reading = from.done
	n, err := from.WriteTo(w)
	if err != nil {
		from.stop()
		return err
	}
	if d.have == most && (d.chunks == nil || most < d.limit) { // what is proved needs no other proof
		var more [1]byte
		if n, _ := io.ReadFull(body, more[:]); n > 0 && end == 0 {
			return release.Errorf(release.ManifestInvalid, "the host sends more than %d bytes, the most that a tarball may have", int64(release.MaxTarball))
		} else if n > 0 {
			return fmt.Errorf("%w than the %d bytes that it should: a captive portal?", errLonger, most)
		}
	}
	if end > 0 && d.have < end {
		return fmt.Errorf("%w at byte %d of %d (%d this time)", errShorter, d.have, end, n)
	}
	return nil
}

// toDisk appends to the download, and to its digest. Errors of the disk get a code, because another
// attempt would meet them again. Where the length is not known, the free space is checked as the
// file grows.
type toDisk struct {
	early
	ctx     context.Context
	d       *download
	total   int64 // bytes of the whole; 0: not known
	checked int64 // the length that there is room for
}

func (w *toDisk) Write(b []byte) (int, error) {
	d := w.d
	if to := d.have + int64(len(b)); w.total == 0 && to > w.checked {
		w.checked = to + growth
		if err := d.s.makeRoom(w.ctx, tarballSize{size: w.checked, unpacked: d.form.unpacked, have: d.have, open: true}); err != nil {
			return 0, roomFault(err)
		}
	}
	// One that was removed is complete all the same; one that was shortened is too short.
	if st, err := d.f.Stat(); err == nil && st.Size() != d.have {
		return 0, errChanged
	}
	n, err := w.early.Write(b)
	if err != nil {
		return n, localFault("write", err)
	}
	d.sum.Write(b)
	d.have += int64(n)
	d.s.effort.hold(d.have)
	d.s.Progress(PhaseDownload, d.have, w.total)
	return n, nil
}
