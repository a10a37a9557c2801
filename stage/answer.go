package stage

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/bilbycast/edge-agent/release"
)

// piece is the part of the tarball that a response says it holds.
type piece struct {
	from  int64 // its first byte
	end   int64 // the byte after its last one; -1: the response does not say
	total int64 // bytes of the whole file; 0: the response does not say
	// cut: the end of the connection is the end of the body, so that a body
	// that was cut cannot be told from a complete one.
	cut bool
}

// answer returns what a response holds, or an error that may pass if that
// contradicts the request, the signed size, or what is on disk already.
// Nothing on disk is touched before.
func (d *download) answer(resp *http.Response) (piece, error) {
	refuse := func(format string, args ...any) (piece, error) {
		return piece{}, fmt.Errorf("the host "+format+": a captive portal?", args...)
	}
	if isPage(resp.Header, nil) {
		return refuse("answers with a page (%s)", release.Foreign(resp.Header.Get("Content-Type"), 60))
	}
	p := piece{end: -1, cut: resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && resp.ProtoMajor == 1}
	switch resp.StatusCode {
	case http.StatusOK: // the whole file, even if a part was asked for
		if resp.ContentLength >= 0 {
			p.end, p.total = resp.ContentLength, resp.ContentLength
		}
		if p.end == 0 {
			return refuse("answers with an empty file")
		}
	case http.StatusPartialContent:
		header := resp.Header.Get("Content-Range")
		if strings.HasPrefix(strings.ToLower(resp.Header.Get("Content-Type")), "multipart/") {
			return refuse("answers with several parts, though one was asked for")
		}
		var ok bool
		if p.from, p.end, p.total, ok = parseRange(header); !ok {
			return refuse("answers with a part that does not say which (Content-Range %q)", release.Foreign(header, 60))
		}
		if p.from != d.have {
			return refuse("answers a range that was not asked for: from byte %d, not %d", p.from, d.have)
		}
		if resp.ContentLength >= 0 && resp.ContentLength != p.end-p.from {
			return refuse("answers with %d bytes, but says that they are %d", resp.ContentLength, p.end-p.from)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		size, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes */")
		total, err := strconv.ParseInt(size, 10, 64)
		switch known := ok && err == nil; {
		case d.limit > 0, known && total != d.have:
			d.doubt = d.limit == 0
			return refuse("says that its file ends before byte %d", d.have)
		}
		return piece{from: d.have, end: d.have, total: d.have}, nil // all of it is here; the digest tells
	}
	switch {
	case p.total > 0 && d.limit > 0 && p.total != d.limit:
		return refuse("answers with a file of %d bytes, but the signed manifest says %d", p.total, d.limit)
	case p.total > release.MaxTarball:
		return piece{}, passing{release.Errorf(release.ManifestInvalid, "the host answers with a file of %d bytes, more than %d", p.total, int64(release.MaxTarball))}
	case p.total > 0 && d.total > 0 && p.total != d.total:
		d.doubt = true
		return refuse("answers with a file of %d bytes, but it had %d before", p.total, d.total)
	case p.total > 0 && p.total < d.have, p.end > 0 && d.limit > 0 && p.end > d.limit:
		d.doubt = d.limit == 0
		return refuse("answers with a file that ends before byte %d", d.have)
	}
	return p, nil
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
