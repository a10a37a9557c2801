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
	file := &early{f: d.f, every: math.MaxInt64, n: d.have, done: d.have}
	if d.syncsChunks() {
		file.every = downloadEarly
	}
	w := io.MultiWriter(&toDisk{ctx: ctx, d: d, to: file, open: total == 0}, d.sum, counter(func(n int64) {
		d.have += n
		d.s.effort.hold(d.have)
		d.s.Progress(PhaseDownload, d.have, total)
	}))
	if d.chunks != nil {
		w = &byChunk{d, w}
	}
	// TLS returns 16 KiB at most, and each write takes several system calls.
	from := newAhead(io.LimitReader(body, most-d.have), downloadAhead)
	n, err := from.WriteTo(w)
	if err != nil {
		from.stop() // or its Read ends with the body
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

// toDisk writes to the download. Errors of the disk get a code, because another attempt
// would meet them again. With open, the length is not known, and the free space is
// checked as the file grows.
type toDisk struct {
	ctx     context.Context
	d       *download
	to      io.Writer // its file
	open    bool
	checked int64 // the length that there is room for
}

func (w *toDisk) Write(b []byte) (int, error) {
	if to := w.d.have + int64(len(b)); w.open && to > w.checked {
		w.checked = to + growth
		if err := w.d.s.makeRoom(w.ctx, tarballSize{size: w.checked, unpacked: w.d.form.unpacked, have: w.d.have, open: true}); err != nil {
			return 0, roomFault(err)
		}
	}
	// One that was removed is complete all the same; one that was shortened is too short.
	if st, err := w.d.f.Stat(); err == nil && st.Size() != w.d.have {
		return 0, errChanged
	}
	n, err := w.to.Write(b)
	return n, localFault("write", err)
}

type counter func(n int64)

func (c counter) Write(p []byte) (int, error) {
	c(int64(len(p)))
	return len(p), nil
}
