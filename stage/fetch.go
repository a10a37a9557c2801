package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/cenkalti/backoff/v5"
)

// retry runs fetch until it succeeds, fails for good (a *release.Error), or
// has failed Tries times for passing reasons.
func (s *Stager) retry(ctx context.Context, what string, fetch func() error) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = s.FirstPause, s.MaxPause
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := fetch()
		var final *release.Error
		if errors.As(err, &final) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(b), backoff.WithMaxTries(uint(s.Tries)), backoff.WithMaxElapsedTime(0))
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var coded *release.Error
	if errors.As(err, &coded) {
		return coded
	}
	return release.Errorf(release.NetworkError, "fetch %s: gave up after %d tries: %w", what, s.Tries, err)
}

// get sends one request. The response has one of the statuses want; every
// other is an error, final or for another try.
func (s *Stager) get(ctx context.Context, u string, header http.Header, want ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, release.Errorf(release.URLInvalid, "%w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "edge-agent")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	for _, w := range want {
		if resp.StatusCode == w {
			return resp, nil
		}
	}
	resp.Body.Close()
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		err := fmt.Errorf("%s answers %s", redact(u), resp.Status)
		if secs, e := strconv.Atoi(resp.Header.Get("Retry-After")); e == nil && secs > 0 {
			pause := min(time.Duration(secs)*time.Second, maxRetryAfter)
			return nil, errors.Join(err, backoff.RetryAfter(int(pause/time.Second)))
		}
		return nil, err
	case code >= 500 || code == http.StatusRequestTimeout:
		return nil, fmt.Errorf("%s answers %s", redact(u), resp.Status)
	case code == http.StatusNotFound:
		return nil, release.Errorf(release.NetworkError, "%s is not there (404): is the version published, with this name?%w", redact(u), absent{})
	default:
		return nil, release.Errorf(release.NetworkError, "%s answers %s", redact(u), resp.Status)
	}
}

// absent makes an error fs.ErrNotExist, and adds nothing to its text.
type absent struct{}

func (absent) Error() string        { return "" }
func (absent) Is(target error) bool { return target == fs.ErrNotExist }

func redact(u string) string {
	p, err := url.Parse(u)
	if err != nil {
		return "URL"
	}
	return p.Redacted()
}

// small fetches a file of at most limit bytes into memory; tooLarge is the code
// of one that has more.
func (s *Stager) small(ctx context.Context, u string, limit int64, tooLarge release.Code) ([]byte, error) {
	var body []byte
	err := s.retry(ctx, redact(u), func() error {
		ctx, watch := s.watchStall(ctx)
		defer watch.stop()
		resp, err := s.get(ctx, u, nil, http.StatusOK)
		if err != nil {
			return watch.explain(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(watch.reader(resp.Body), limit+1))
		if err != nil {
			return watch.explain(err)
		}
		if int64(len(b)) > limit {
			return release.Errorf(tooLarge, "%s has more than %d bytes", redact(u), limit)
		}
		body = b
		return nil
	})
	return body, err
}

// stallWatch ends a request that delivers no byte for a while. There is no
// limit on the whole: a slow link may take hours.
type stallWatch struct {
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	ctx    context.Context
}

var errStalled = errors.New("stalled")

func (s *Stager) watchStall(ctx context.Context) (context.Context, *stallWatch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &stallWatch{limit: s.StallTimeout, cancel: cancel, ctx: ctx}
	w.timer = time.AfterFunc(w.limit, func() { cancel(errStalled) })
	return ctx, w
}

func (w *stallWatch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

func (w *stallWatch) explain(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		return fmt.Errorf("no byte for %v: %w", w.limit, errStalled)
	}
	return err
}

func (w *stallWatch) reader(r io.Reader) io.Reader { return &stallReader{r, w} }

type stallReader struct {
	r io.Reader
	w *stallWatch
}

func (r *stallReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.w.timer.Reset(r.w.limit)
	}
	return n, err
}
