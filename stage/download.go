package stage

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// openDownload opens what an earlier attempt left of f, or a new file.
func (s *Stager) openDownload(f form, src Source) (*download, error) {
	path := s.Layout.Download(f.SHA256)
	disk := s.Layout.Disk()
	setAside(s.Layout, path)
	// Each write appends: where another process shortens the file meanwhile, it leaves no hole,
	// but a file that is too short.
	const flags = os.O_RDWR | os.O_APPEND
	file, err := disk.Create(path, flags, 0o600)
	if errors.Is(err, fs.ErrPermission) { // another user began it
		disk.Discard(path)
		file, err = disk.Create(path, flags, 0o600)
	}
	if err != nil {
		return nil, localFault("open", err)
	}
	d := &download{s: s, f: file, path: path, src: src, form: f, limit: f.Size, sum: sha256.New()}
	st, err := file.Stat()
	d.began = err == nil && st.Size() > 0
	if f.Chunks != nil {
		d.chunks = newChunks(f.Chunks)
	}
	return d, nil
}

// download fetches the rest of d, and checks the digest of the whole. It resumes what an
// earlier attempt left.
//
// A response that contradicts the signed size, or the bytes on disk, uses one
// attempt and changes nothing on disk. A wrong digest is final, unless the bytes came
// from more than one response or no size was signed: then any response may be wrong,
// and the download starts once more. Where the repository has other names, what one of them
// has is refused, and the next one is asked.
func (s *Stager) download(ctx context.Context, src Source, d *download) error {
	if d.began { // to verify what is here takes a while
		s.Progress(PhaseDownload, 0, d.limit)
	}
	if err := d.rehash(); err != nil {
		return err
	}
	err := s.inTurn(ctx, src, func(from Source) error {
		if d.responses > 0 { // what another name has was refused
			if err := d.refused(); err != nil {
				return err
			}
		}
		d.src = from
		return d.complete(ctx, d.form.SHA256)
	})
	if err != nil {
		if d.have == 0 || isCode(err, release.DiskFull) || isCode(err, release.ManifestInvalid) {
			s.Layout.Disk().Discard(d.path)
		}
		return withDiskFull(err)
	}
	s.effort.goOn()
	return nil
}

// room makes room for the rest of d, if its size is known. What was unpacked of it, in the
// directory partial, goes before an installed version does.
func (d *download) room(ctx context.Context, partial string) error {
	if d.limit == 0 {
		if exists(partial) { // or installed versions would go for it, as the download grows
			return d.s.Layout.Disk().Discard(partial)
		}
		return nil
	}
	st, err := d.f.Stat()
	if err != nil {
		return localFault("look at", err)
	}
	size := tarballSize{size: d.limit, unpacked: d.form.unpacked, have: min(st.Size(), d.limit)}
	if isCode(d.s.fits(size), release.DiskFull) { // before a version is removed
		d.s.removeOthers(d.form)
	}
	if exists(partial) && isCode(d.s.fits(size), release.DiskFull) {
		d.s.Layout.Disk().Discard(partial)
	}
	err = d.s.makeRoom(ctx, size)
	if err != nil {
		d.s.Layout.Disk().Discard(d.path)
	}
	return err
}

// close closes the file, once nothing writes it back.
func (d *download) close() {
	if d.chunks != nil {
		d.chunks.synced()
	}
	d.f.Close()
}

// complete brings the rest home, and compares the digest. It begins again at most once: if
// several answers say that the bytes on disk are the wrong ones.
func (d *download) complete(ctx context.Context, sha256 string) error {
	e := d.s.effort
	again := true
	restart := func() error { again = false; return d.restart() }
	for {
		err := d.s.retry(ctx, d.src, d.form.file, func() error {
			err := d.notHere(d.fetchRest(ctx))
			if err != nil && d.doubt {
				d.doubts++
			}
			if d.doubts >= d.s.Tries && again && d.have > 0 && ctx.Err() == nil {
				if err = restart(); err == nil {
					err = d.fetchRest(ctx)
				}
			}
			e.hold(d.have)
			e.stay = d.responses > 0
			return err
		})
		if err != nil {
			return err
		}
		got := hex.EncodeToString(d.sum.Sum(nil))
		if got == sha256 {
			return nil
		}
		if !again || d.chunks != nil || !d.leftover && (d.src.Local() || d.responses <= 1 && d.limit > 0) {
			return cmp.Or(d.restart(), release.Errorf(release.ChecksumMismatch, "the tarball's SHA-256 is %s, but the signed manifest says %s", got, sha256))
		}
		if err := restart(); err != nil {
			return err
		}
	}
}

// notHere makes err final where the host does not have this form: it says so or, as often as
// a fetch is tried, it sends nothing of it. It may also have sent some, and no more for
// Config.MissingFor. Another form may be there, and the last one is looked for longer.
func (d *download) notHere(err error) error {
	if err == nil || d.form.lastFile || final(err) || errors.As(err, new(unreachable)) {
		return err
	}
	if e := d.s.effort; d.have > 0 {
		if e.Limit == 0 || e.tries < d.s.Tries || e.counted < d.s.MissingFor {
			return err
		}
	} else if d.none++; !errors.Is(err, fs.ErrNotExist) && d.none < d.s.Tries {
		return err
	}
	return release.Errorf(release.NetworkError, "fetch %s: %w%w", d.src.Describe(d.form.file), err, otherFile{})
}

// download is one tarball being downloaded; f and sum have its first have bytes.
type download struct {
	s         *Stager
	f         *fsutil.File
	path      string
	src       Source
	form      form
	chunks    *chunks         // nil: only the digest of the whole is known
	reading   <-chan struct{} // closed when the last body is not read any more
	stream    *stream         // reads f; nil: nothing does yet
	limit     int64           // bytes that the manifest says; 0: it does not
	total     int64           // bytes that the first response said, if limit is 0; 0: it did not
	have      int64
	sum       hash.Hash
	etag      string // of the response that the bytes so far came from
	responses int    // of this process that the bytes so far came from
	began     bool   // an earlier process left some of it
	leftover  bool   // the first bytes are an earlier process's
	doubt     bool   // the last error may be the fault of the bytes on disk
	doubts    int    // how many were
	shortened int    // times that another process did that
	none      int    // tries that were answered, and brought nothing
}

// rehash adds what an earlier process left to have and sum.
func (d *download) rehash() error {
	if d.chunks != nil {
		return d.recheck()
	}
	n, err := io.Copy(d.sum, d.f)
	d.have = n
	if err != nil { // what follows is downloaded again: it may get sectors that can be read
		err = d.truncate(n)
	}
	switch {
	case err != nil:
		return err
	case d.limit > 0 && n > d.limit:
		return d.restart()
	}
	d.leftover = n > 0
	d.s.effort.lose(n) // some of what an earlier process recorded may be gone
	d.s.effort.renewed()
	return nil
}

// restart removes all bytes.
func (d *download) restart() error {
	d.sum.Reset()
	d.etag, d.total, d.responses, d.leftover = "", 0, 0, false
	if d.chunks != nil {
		d.chunks.begin()
		d.stream.verify(0)
	}
	err := d.truncate(0)
	d.s.effort.lose(0)
	return err
}

func (d *download) truncate(size int64) error {
	d.have = size
	err := d.f.Truncate(size)
	if err == nil {
		_, err = d.f.Seek(size, io.SeekStart)
	}
	return localFault("shorten", err)
}

// mark is a state to which the download can be set back.
type mark struct {
	have, total int64
	responses   int
	etag        string
	sum, piece  []byte // states of the digests of the whole and of the present chunk
}

func (d *download) mark() (m mark, err error) {
	m = mark{have: d.have, total: d.total, responses: d.responses, etag: d.etag}
	m.sum, err = d.sum.(encoding.BinaryMarshaler).MarshalBinary()
	if err == nil && d.chunks != nil {
		m.piece, err = d.chunks.piece.(encoding.BinaryMarshaler).MarshalBinary()
	}
	return m, localFault("hash", err)
}

// reset removes the bytes after m.
func (d *download) reset(m mark) error {
	err := d.sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(m.sum)
	if err == nil && d.chunks != nil {
		err = d.chunks.piece.(encoding.BinaryUnmarshaler).UnmarshalBinary(m.piece)
	}
	if err != nil {
		return localFault("hash", err)
	}
	d.total, d.responses, d.etag = m.total, m.responses, m.etag
	return d.truncate(m.have)
}

// fetchRest fetches the rest. An error that is not final keeps the bytes so far.
func (d *download) fetchRest(ctx context.Context) error {
	if d.limit > 0 && d.have == d.limit {
		return nil
	}
	d.doubt = false
	if d.chunks != nil {
		if err := d.toBoundary(); err != nil {
			return err
		}
	}
	p, err := d.src.Open(ctx, d.form.file, d.have, d.etag)
	if err != nil {
		return err
	}
	defer func(body io.Closer) {
		body.Close() // which ends a Read that waits
		await(d.reading)
	}(p.Body)
	if p, err = d.accept(p); err != nil || p.From == p.End {
		return err
	}
	body := io.Reader(p.Body)
	if !d.src.Local() {
		body = throttle(ctx, body, d.s.MaxBandwidth)
	} else if err := d.restart(); err != nil { // reading a local file again costs less than comparing
		return err
	}
	return d.readPart(ctx, p, bufio.NewReaderSize(body, 4<<10))
}

// readPart reads body, which is that of p. A body that turns out not to be p leaves the
// disk as it was.
func (d *download) readPart(ctx context.Context, p Part, body *bufio.Reader) error {
	before, err := d.mark()
	if err != nil {
		return err
	}
	// A tarball never begins with text, and hardly anywhere looks like a page. A chunk that does
	// would do so again.
	if b, err := body.Peek(512); !d.src.Local() && len(b) > 0 && (p.From == 0 || d.chunks == nil) {
		if kind := http.DetectContentType(b); strings.HasPrefix(kind, "text/html") || p.From == 0 && strings.HasPrefix(kind, "text/") {
			if err != nil && err != io.EOF { // it says more than the beginning
				return err
			}
			return fmt.Errorf("the host answers with text, not with a tarball: a captive portal? It begins with %q", release.Foreign(string(b[:min(len(b), 40)]), 60))
		}
	}
	if err := d.compare(p, body); err != nil {
		if d.chunks == nil || !d.doubt {
			return d.beginAgain(err)
		}
		d.doubt = false // the host is wrong, or what is not verified yet
		d.chunks.wrong++
		if err := d.drop(); err != nil {
			return err
		}
		if d.chunks.wrong >= maxWrong {
			return release.Errorf(release.ChecksumMismatch, "%w", err)
		}
		return err
	}
	if d.chunks == nil { // a chunk is proved whichever server sends it, and some hosts have several
		d.etag = p.ETag
	}
	d.responses++
	if d.chunks != nil {
		d.chunks.idle++
	}
	if p.Total > 0 {
		d.total = p.Total
	}
	end := p.End
	if end < 0 {
		end = d.limit
	}
	err = d.beginAgain(d.copy(ctx, end, body))
	contradicts := errors.Is(err, errLonger) || errors.Is(err, errShorter) && !p.Cut
	switch {
	case d.chunks != nil && (errors.Is(err, errChunk) || contradicts && d.src.Local()): // what is verified stays
		if err := d.drop(); err != nil {
			return err
		}
		if d.chunks.wrong >= maxWrong || d.src.Local() {
			return release.Errorf(release.ChecksumMismatch, "%w", err)
		}
	case contradicts:
		if d.chunks != nil && d.chunks.good.have > before.have {
			before = d.chunks.good
		}
		if err := d.reset(before); err != nil {
			return err
		}
	}
	if err == nil && d.limit > 0 && d.have < d.limit {
		err = fmt.Errorf("the part ended at byte %d of %d", d.have, d.limit)
	}
	return err
}

// compare reads the bytes of body that are on disk already, and compares them: a server
// that ignores ranges sends them again. If they differ and the whole file has the
// right length, the bytes on disk may be the wrong ones.
func (d *download) compare(p Part, body io.Reader) error {
	n := d.have - p.From
	ours := bufio.NewReaderSize(io.NewSectionReader(d.f.File, 0, n), 32<<10)
	var a, b [32 << 10]byte
	for at := int64(0); at < n; {
		size := min(n-at, int64(len(a)))
		if _, err := io.ReadFull(body, a[:size]); err != nil {
			return fmt.Errorf("the connection ended at byte %d of the %d that are here already: %w", at, n, err)
		}
		if _, err := io.ReadFull(ours, b[:size]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errChanged
		} else if err != nil {
			return localFault("read", err)
		}
		at += size
		if !bytes.Equal(a[:size], b[:size]) {
			if d.doubt = d.limit == 0 || p.Total > 0; !d.doubt {
				rest, err := io.Copy(io.Discard, io.LimitReader(body, d.limit-at+1))
				d.doubt = err == nil && at+rest == d.limit
			}
			return errors.New("the host answers with other bytes than before: a captive portal?")
		}
	}
	return nil
}
