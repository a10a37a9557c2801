package web

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strconv"
)

// unreadable counts the entries that the lists on a page leave out because the manager cannot
// read them.
type unreadable struct{ count int }

type unreadableKey struct{}

// unreadableEnd is the end of a list that leaves out entries: the field is the last one.
var unreadableEnd = regexp.MustCompile(`"unreadable":([0-9]{1,9})\}\s*$`)

// counted is a transport that counts what the answers leave out, in the unreadable of the
// request's context.
type counted struct{ http.RoundTripper }

// RoundTrip makes a call of the API.
func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	u, ok := r.Context().Value(unreadableKey{}).(*unreadable)
	if err != nil || !ok || r.Method != http.MethodGet {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body) // which is in memory already
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	if m := unreadableEnd.FindSubmatch(body[max(0, len(body)-64):]); m != nil {
		n, _ := strconv.Atoi(string(m[1])) // nine digits
		u.count = max(u.count, n)          // the pages of one list have the same number
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

func countUnreadable(ctx context.Context) context.Context {
	return context.WithValue(ctx, unreadableKey{}, &unreadable{})
}

// unreadableOf returns how many entries the lists of a request left out so far.
func unreadableOf(ctx context.Context) int {
	if u, ok := ctx.Value(unreadableKey{}).(*unreadable); ok {
		return u.count
	}
	return 0
}
