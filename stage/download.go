package stage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// minInodes must be free before a release is staged. Most have a handful of
// files; one with more still fails cleanly when they run out.
const minInodes = 64

// progress that all tries of a download together must make, to get as many again.
const progress = 1 << 20

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

// download brings the tarball to Layout.Download, with the digest that a
// names, and sets a.Size. It resumes what an earlier try left. On a mismatch
// the file is deleted; bytes left by an earlier process get one fresh start
// first, since they, not the server, may be what is wrong.
func (s *Stager) download(ctx context.Context, u string, a *release.Artefact) error {
	path := s.Layout.Download(a.SHA256)
	disk := s.Layout.Disk()
	f, err := disk.Create(path, os.O_RDWR|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return full(err)
	}
	defer f.Close()
	d := &download{s: s, f: f, url: u, limit: a.Size, unpacked: a.UnpackedSize, sum: sha256.New()}
	leftover, err := d.rehash()
	if err != nil {
		return err
	}
	if a.Size > 0 {
		if err := s.checkSpace(a.Size, a.UnpackedSize, d.have); err != nil {
			disk.Discard(path)
			return err
		}
	}
	for {
		before := d.have
		err = s.retry(ctx, redact(u), func() error { return d.more(ctx) })
		if isCode(err, release.NetworkError) && d.have-before >= progress {
			continue // a bad link, but it gets there: the tries begin again
		}
		if err != nil {
			if d.have == 0 || isCode(err, release.DiskFull) {
				disk.Discard(path)
			}
			return full(err)
		}
		if got := hex.EncodeToString(d.sum.Sum(nil)); got != a.SHA256 {
			if leftover > 0 {
				leftover = 0
				if err := d.restart(); err != nil {
					return err
				}
				continue
			}
			disk.Discard(path)
			return release.Errorf(release.ChecksumMismatch, "the tarball's SHA-256 is %s, but the signed manifest says %s", got, a.SHA256)
		}
		a.Size = d.have
		return nil
	}
}

func isCode(err error, code release.Code) bool {
	var e *release.Error
	return errors.As(err, &e) && e.Code == code
}

// download is one tarball on its way to disk; have bytes of it are in f and sum.
type download struct {
	s        *Stager
	f        *fsutil.File
	url      string
	limit    int64 // bytes that the manifest says; 0: it does not
	unpacked int64
	have     int64
	sum      hash.Hash
	etag     string // of the response that the bytes so far came from
}

// rehash takes what an earlier process left into account.
func (d *download) rehash() (int64, error) {
	n, err := io.Copy(d.sum, d.f)
	d.have = n
	if err != nil {
		return 0, err
	}
	if d.limit > 0 && n > d.limit {
		return 0, d.restart()
	}
	return n, nil
}

func (d *download) restart() error {
	d.sum.Reset()
	d.have, d.etag = 0, ""
	if err := d.f.Truncate(0); err != nil {
		return err
	}
	_, err := d.f.Seek(0, io.SeekStart)
	return err
}

// more fetches the rest. An error that is not final leaves a longer file.
func (d *download) more(ctx context.Context) error {
	if d.limit > 0 && d.have == d.limit {
		return nil
	}
	if d.s.From != nil {
		return d.moreFrom(ctx)
	}
	ctx, watch := d.s.watchStall(ctx)
	defer watch.stop()
	h := http.Header{}
	if d.have > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
		if d.etag != "" {
			h.Set("If-Range", d.etag)
		}
	}
	resp, err := d.s.get(ctx, d.url, h, http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return watch.explain(err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		// The server's file ends where ours does, or before; the digest tells.
		return nil
	case http.StatusPartialContent:
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(d.have, 10)+"-") {
			if err := d.restart(); err != nil {
				return err
			}
			return fmt.Errorf("%s answers a range that was not asked for", redact(d.url))
		}
	case http.StatusOK: // the server ignores ranges, or has another file now
		if d.have > 0 {
			if err := d.restart(); err != nil {
				return err
			}
		}
	}
	d.etag = resp.Header.Get("ETag")
	if strings.HasPrefix(d.etag, "W/") {
		d.etag = "" // a weak one is no promise about bytes
	}
	return watch.explain(d.copy(resp.ContentLength, throttle(ctx, watch.reader(resp.Body), d.s.MaxBandwidth)))
}

// copy takes the body of length bytes, or less than 0 if that is not known.
func (d *download) copy(length int64, body io.Reader) error {
	total := d.limit
	if total == 0 && length > 0 {
		total = d.have + length
		if total > release.MaxTarball {
			return release.Errorf(release.ManifestInvalid, "the tarball has %d bytes, more than %d", total, int64(release.MaxTarball))
		}
		if err := d.s.checkSpace(total, d.unpacked, d.have); err != nil {
			return err
		}
	}
	limit := d.limit
	if limit == 0 {
		limit = release.MaxTarball
	}
	if err := fsutil.Reserve(d.f.File, total); err != nil {
		return full(err)
	}
	w := io.MultiWriter(d.f, d.sum, counter(func(n int64) {
		d.have += n
		d.s.Progress(PhaseDownload, d.have, total)
	}))
	n, err := io.Copy(w, io.LimitReader(body, limit-d.have+1))
	if err != nil {
		return full(err)
	}
	if d.have > limit {
		if err := d.restart(); err != nil {
			return err
		}
		return release.Errorf(release.ChecksumMismatch, "the server sends more than the %d bytes that the signed manifest says", limit)
	}
	if d.limit > 0 && d.have < d.limit {
		return fmt.Errorf("the connection ended at byte %d of %d (%d this time)", d.have, d.limit, n)
	}
	return nil
}

type counter func(n int64)

func (c counter) Write(p []byte) (int, error) {
	c(int64(len(p)))
	return len(p), nil
}
