package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of what a Client reads.
const (
	maxAnswer  = 64 << 20 // bytes of an answer
	maxProblem = 64 << 10 // bytes of a refusal
)

// Client calls the API of one manager. Its methods are safe for concurrent use.
type Client struct {
	// BaseURL is the manager's, like https://127.0.0.1:8443.
	BaseURL string
	// Token is the bearer token; "": none is sent.
	Token string
	// ReadToken, if set, returns the bearer token of each request in place of Token.
	ReadToken func() (string, error)
	// HTTP makes the requests; nil means http.DefaultClient. InProcess is a transport
	// that needs no network. A Client sets no timeouts: HTTP and contexts do.
	HTTP *http.Client
	// Unreadable, if set, is called for each answer of a list that leaves entries out, because
	// the manager cannot read them, with the path and their number.
	Unreadable func(path string, n int)
}

// Option changes one call.
type Option func(*call)

type call struct {
	header http.Header
	raw    *[]byte
}

// WithIdempotencyKey makes repeating the call safe: the manager carries out the same
// request with the same key once, and answers it alike for a day.
func WithIdempotencyKey(key string) Option {
	return func(c *call) { c.header.Set("Idempotency-Key", key) }
}

// WithRaw also stores the answer in to as the manager sent it, with fields that this
// version of the client does not know.
func WithRaw(to *[]byte) Option {
	return func(c *call) { c.raw = to }
}

// Call makes one call: body is sent as JSON unless it is nil, and the answer is
// decoded into answer unless that is nil. A refusal is a *Problem. If no complete
// answer arrived, the error wraps ErrUnreachable, and the manager may have carried
// out the request.
func (c *Client) Call(ctx context.Context, method, path string, body, answer any, options ...Option) error {
	cl := call{header: http.Header{"Accept": {"application/json"}}}
	for _, o := range options {
		o(&cl)
	}
	resp, err := c.send(ctx, method, path, body, cl.header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("%s %s: the answer has more than %d bytes", method, path, maxAnswer)
	}
	if cl.raw != nil {
		*cl.raw = b
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if c.Unreadable != nil && method == http.MethodGet {
		var left struct{ Unreadable int }
		if json.Unmarshal(b, &left) == nil && left.Unreadable > 0 {
			c.Unreadable(path, left.Unreadable)
		}
	}
	return nil
}

// send returns an answer of success, whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
		header.Set("Content-Type", "application/json")
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.BaseURL, "/")+path, content)
	if err != nil { // it quotes the URL, which may have a password
		return nil, fmt.Errorf("%s %s: the manager's URL is not valid", method, path)
	}
	req.Header = header
	token := c.Token
	if c.ReadToken != nil {
		if token, err = c.ReadToken(); err != nil {
			return nil, err
		}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	hc := c.HTTP
	if hc == nil {
		hc = http.DefaultClient
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problemOf(resp)
}

// problemOf reads a refusal. An answer that is no Problem, of a proxy say, becomes
// one with the status alone.
func problemOf(resp *http.Response) *Problem {
	var p Problem
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil || json.Unmarshal(b, &p) != nil || p.Detail == "" {
		p = Problem{Type: "about:blank", Title: http.StatusText(resp.StatusCode), Detail: resp.Status, Code: p.Code}
	}
	p.Status = resp.StatusCode
	if secs, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && secs > 0 {
		p.RetryAfter = time.Duration(secs) * time.Second
	}
	return &p
}

// get makes a call that changes nothing.
func get[T any](ctx context.Context, c *Client, path string, q url.Values, options []Option) (answer T, err error) {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	err = c.Call(ctx, http.MethodGet, path, nil, &answer, options...)
	return answer, err
}

// change makes a call that changes something.
func change[T any](ctx context.Context, c *Client, method, path string, body any, options []Option) (answer T, err error) {
	err = c.Call(ctx, method, path, body, &answer, options...)
	return answer, err
}

// reasonBody returns the body for a reason; nil if there is none.
func reasonBody(reason string) any {
	if reason == "" {
		return nil
	}
	return Reason{reason}
}

// collect reads a list to its end, page by page. It fails if a page comes again.
func collect[T any](page func(after string) ([]T, string, error)) ([]T, error) {
	list, after, seen := []T{}, "", map[string]bool{}
	for {
		some, next, err := page(after)
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
		if next == "" {
			return list, nil
		}
		if seen[next] {
			return nil, fmt.Errorf("the list does not end: page %.80q comes again", next)
		}
		seen[next] = true
		after = next
	}
}
