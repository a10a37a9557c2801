package stage

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/bilbycast/edge-agent/release"
)

// parseAnswer returns what a response to a request for the bytes from at on contains. An
// error is retried. It does not read the body.
func parseAnswer(resp *http.Response, at int64) (Part, error) {
	refuse := func(format string, args ...any) (Part, error) {
		return Part{}, fmt.Errorf("the host "+format+": a captive portal?", args...)
	}
	p := Part{End: -1, Type: resp.Header.Get("Content-Type")}
	p.Cut = resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && resp.ProtoMajor == 1
	if resp.StatusCode != http.StatusOK && isPage(p.Type, nil) {
		return refuse("answers with a page (%s)", release.Foreign(p.Type, 60))
	}
	switch resp.StatusCode {
	case http.StatusOK: // the whole file, even if a part was requested
		if resp.ContentLength >= 0 {
			p.End, p.Total = resp.ContentLength, resp.ContentLength
		}
	case http.StatusPartialContent:
		header := resp.Header.Get("Content-Range")
		if strings.HasPrefix(strings.ToLower(p.Type), "multipart/") {
			return refuse("answers with several parts, though one was asked for")
		}
		var ok bool
		if p.From, p.End, p.Total, ok = parseRange(header); !ok {
			return refuse("answers with a part that does not say which (Content-Range %q)", release.Foreign(header, 60))
		}
		if p.From != at {
			return refuse("answers a range that was not asked for: from byte %d, not %d", p.From, at)
		}
		if resp.ContentLength >= 0 && resp.ContentLength != p.End-p.From {
			return refuse("answers with %d bytes, but says that they are %d", resp.ContentLength, p.End-p.From)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		p.PastEnd = true
		if size, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes */"); ok {
			if n, err := strconv.ParseInt(size, 10, 64); err == nil && n >= 0 {
				p.Total = n
			}
		}
	}
	etag := resp.Header.Get("ETag")
	if !strings.HasPrefix(etag, "W/") && len(etag) <= maxETag { // a weak one is no promise about bytes
		p.ETag = etag
	}
	return p, nil
}

// maxETag bounds an ETag that is sent back to a host, in bytes.
const maxETag = 1 << 10

// accept returns the bounds of a part of the tarball, or an error if the part contradicts
// the signed size or the bytes on disk. It changes nothing on disk.
func (d *download) accept(p Part) (Part, error) {
	refuse := func(format string, args ...any) (Part, error) {
		return Part{}, fmt.Errorf("the host "+format+": a captive portal?", args...)
	}
	local := d.src.Local()
	switch {
	case local && d.limit > 0 && p.Total != d.limit:
		return Part{}, release.Errorf(release.ChecksumMismatch, "%s has %d bytes, but the signed manifest says %d", d.form.file, p.Total, d.limit)
	case local && p.Total > release.MaxTarball:
		return Part{}, release.Errorf(release.ManifestInvalid, "%s has %d bytes, more than %d", d.form.file, p.Total, int64(release.MaxTarball))
	case !local && isPage(p.Type, nil):
		return refuse("answers with a page (%s)", release.Foreign(p.Type, 60))
	case p.PastEnd && (d.limit > 0 || p.Total > 0 && p.Total != d.have):
		d.doubt = d.limit == 0
		return refuse("says that its file ends before byte %d", d.have)
	case p.PastEnd: // all of it is on disk; the digest tells
		p.From, p.End, p.Total = d.have, d.have, d.have
	case !local && p.From == 0 && p.End == 0:
		return refuse("answers with an empty file")
	}
	switch {
	case p.Total > 0 && d.limit > 0 && p.Total != d.limit:
		if p.From > 0 || isGzip(p.Body) { // no portal answers so
			return Part{}, fmt.Errorf("the host has another file: it has %d bytes, but the signed manifest says %d%w", p.Total, d.limit, otherFile{})
		}
		return refuse("answers with a file of %d bytes, but the signed manifest says %d", p.Total, d.limit)
	case p.Total > release.MaxTarball:
		return Part{}, retryable{release.Errorf(release.ManifestInvalid, "the host answers with a file of %d bytes, more than %d", p.Total, int64(release.MaxTarball))}
	case p.Total > 0 && d.total > 0 && p.Total != d.total:
		d.doubt = true
		return refuse("answers with a file of %d bytes, but it had %d before", p.Total, d.total)
	case p.Total > 0 && p.Total < d.have, p.End > 0 && d.limit > 0 && p.End > d.limit:
		d.doubt = d.limit == 0
		return refuse("answers with a file that ends before byte %d", d.have)
	}
	return p, nil
}

// isGzip reports whether body begins as a tarball does.
func isGzip(body io.Reader) bool {
	var b [2]byte
	_, err := io.ReadFull(body, b[:])
	return err == nil && b == [2]byte{0x1f, 0x8b}
}

// parseRange reads a Content-Range of one part; total is 0 where it is "*".
func parseRange(s string) (from, end, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, 0, false
	}
	part, size, ok := strings.Cut(strings.TrimSpace(s), "/")
	first, last, ok2 := strings.Cut(part, "-")
	if !ok || !ok2 {
		return 0, 0, 0, false
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	last64, err2 := strconv.ParseInt(last, 10, 64)
	var err3 error
	if size != "*" {
		total, err3 = strconv.ParseInt(size, 10, 64)
	}
	if err1 != nil || err2 != nil || err3 != nil || from < 0 || last64 < from || last64 > release.MaxTarball || size != "*" && last64 >= total {
		return 0, 0, 0, false
	}
	return from, last64 + 1, total, true
}
