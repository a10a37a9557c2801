package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/release"
)

// readBody decodes a body of JSON without unknown fields. If that fails, it answers, and
// returns false.
func readBody(w http.ResponseWriter, r *http.Request, to any) bool {
	return readBodyOf(w, r, to, api.MaxBody)
}

// readBodyOf is readBody for a body of at most that many bytes.
func readBodyOf(w http.ResponseWriter, r *http.Request, to any, most int64) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
	d.DisallowUnknownFields()
	err := d.Decode(to)
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = cmp.Or(tooLong(end), errors.New("more than one JSON value"))
		}
	}
	if err != nil {
		badRequest(w, fmt.Errorf("the body does not fit this call: %w", err))
		return false
	}
	return true
}

// readOptional is readBody for a body that may be absent.
func readOptional(w http.ResponseWriter, r *http.Request, to any) bool {
	return r.ContentLength == 0 || readBody(w, r, to)
}

// readReason reads the optional body of an act that cannot be undone. If it is not
// valid, it answers, and returns false.
func readReason(w http.ResponseWriter, r *http.Request) (string, bool) {
	var body api.Reason
	if !readOptional(w, r, &body) {
		return "", false
	}
	return checkReason(w, body.Reason)
}

// checkReason returns a reason as one line. If it is too long, it answers, and returns
// false.
func checkReason(w http.ResponseWriter, reason string) (string, bool) {
	if err := api.CheckReason(reason); err != nil {
		badRequest(w, err)
		return "", false
	}
	return release.Foreign(strings.TrimSpace(reason), api.MaxReason), true
}

// tooLong returns err if a body is too large, or nil.
func tooLong(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	return nil
}

func badRequest(w http.ResponseWriter, err error) {
	if long, ok := errors.AsType[*http.MaxBytesError](err); ok {
		err = fmt.Errorf("the body is too large: it has more than %d bytes", long.Limit)
	}
	answer.Problem(w, http.StatusBadRequest, api.CodeBadRequest, "%v", err)
}

// query reads the values of a query, and keeps the last error.
type query struct {
	r   *http.Request
	err error
}

func (q *query) text(key string) string { return q.r.URL.Query().Get(key) }

func (q *query) number(key string, to *int, most int) {
	if v := q.text(key); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > most {
			q.err = fmt.Errorf("%s=%.40q is not a number from 1 to %d", key, v, most)
			return
		}
		*to = n
	}
}

func (q *query) boolean(key string, to *bool) {
	if v := q.text(key); v != "" {
		b, err := strconv.ParseBool(v)
		if err != nil {
			q.err = fmt.Errorf("%s=%.40q is neither true nor false", key, v)
			return
		}
		*to = b
	}
}

func (q *query) sequence(key string, to *int64) {
	if v := q.text(key); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 {
			q.err = fmt.Errorf("%s=%.40q is not the \"next\" of an answer", key, v)
			return
		}
		*to = n
	}
}

func (q *query) instant(key string, to *time.Time) {
	if v := q.text(key); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			q.err = fmt.Errorf("%s=%.40q is not a time in RFC 3339", key, v)
			return
		}
		*to = t
	}
}

// failed answers the error of the query, and reports whether there is one.
func (q *query) failed(w http.ResponseWriter) bool {
	if q.err != nil {
		badRequest(w, q.err)
	}
	return q.err != nil
}

// pageOf returns the page of a list that a request asks for, and the id after which the
// next page begins; "": it is the last one. If the query is not valid, it answers, and
// returns false.
func pageOf[T any](w http.ResponseWriter, r *http.Request, list []T, id func(T) string) ([]T, string, bool) {
	limit := api.DefaultLimit
	q := query{r: r}
	if q.number("limit", &limit, api.MaxLimit); q.failed(w) {
		return nil, "", false
	}
	if after := q.text("after"); after != "" {
		i := slices.IndexFunc(list, func(v T) bool { return id(v) == after })
		if i < 0 {
			badRequest(w, fmt.Errorf("after=%.80q is not in the list", after))
			return nil, "", false
		}
		list = list[i+1:]
	}
	if len(list) <= limit {
		return list, "", true
	}
	return list[:limit], id(list[limit-1]), true
}
