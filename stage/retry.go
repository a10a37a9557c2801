package stage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/cenkalti/backoff/v5"
)

// Patience says how long fetches from a release host are retried. Every byte of the release
// that arrives for the first time renews the tries and the time.
type Patience struct {
	// Limit is for how long a fetch is retried without progress. Time in which the host
	// cannot be reached does not count: then the fetch waits. 0: a fetch fails after
	// Config.Tries tries without progress, also while the host cannot be reached. So does
	// that of a manifest which the host says it does not have, whatever the limit.
	Limit time.Duration
	// Before is what an earlier process reported last of the same release, so that a restart
	// renews neither tries nor time.
	Before Wait
	// Waiting, if set, is told after each failed try what the fetch waits for, and gets the
	// zero Wait when it goes on. It must return quickly.
	Waiting func(Wait)
}

// Wait is what a fetch waits for. The zero Wait: it waits for nothing.
type Wait struct {
	Reason  string        // a noun phrase
	Away    bool          // the host cannot be reached, so the time does not count
	Since   time.Time     // of the first failure after the last progress
	Counted time.Duration // without progress, in which the host could be reached
	Left    time.Duration // of Patience.Limit
	Have    int64         // bytes of the release that were here at the last progress
}

const (
	// While the host cannot be reached, a pause is about a fortieth of the time since the
	// first failure, within these limits: a link may be up for some seconds in every few
	// minutes only.
	minAwayPause = 2 * time.Second
	maxAwayPause = 30 * time.Second
)

// SetPatience sets how the fetches of the next release are retried. Without it they are
// retried as with the zero Patience.
func (s *Stager) SetPatience(p Patience) {
	if p.Waiting == nil {
		p.Waiting = func(Wait) {}
	}
	b := p.Before
	s.effort = &effort{Patience: p, best: b.Have, counted: b.Counted, since: b.Since, waiting: b != Wait{}}
}

// effort is how far the fetches of one release are.
type effort struct {
	Patience
	done    int64 // bytes of the files that are complete
	have    int64 // done, and what is here of the present file
	best    int64 // the value of have at the last progress
	counted time.Duration
	since   time.Time // of the first failure after the last progress; zero: there was none
	waiting bool      // as it was told last
}

// hold records that n bytes of the present file are here.
func (e *effort) hold(n int64) {
	e.have = e.done + n
	if e.have > e.best {
		e.goOn()
	}
}

// goOn tells that the fetch waits no more.
func (e *effort) goOn() {
	if e.waiting {
		e.waiting = false
		e.Waiting(Wait{})
	}
}

// lose is hold after bytes were removed, or turned out to be wrong: those that replace them
// are progress.
func (e *effort) lose(n int64) {
	e.hold(n)
	e.best = min(e.best, e.have)
}

// complete records that the present file of n bytes is complete.
func (e *effort) complete(n int64) {
	e.hold(n)
	e.done += n
}

// renewed reports whether bytes have arrived since it last did, and renews the time.
func (e *effort) renewed() bool {
	if e.have <= e.best {
		return false
	}
	e.best, e.counted, e.since = e.have, 0, time.Time{}
	return true
}

// retryable is an error with a code that may still pass by itself: a captive portal's
// redirect, for example. It uses one attempt.
type retryable struct{ error }

func (p retryable) Unwrap() error { return p.error }

// unreachable is an error of a request before anything answered it.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// retry runs fetch, of the file name of src, until it succeeds, fails for good (a
// *release.Error that is not retryable), or the patience ends.
func (s *Stager) retry(ctx context.Context, src Source, name string, fetch func() error) error {
	e := s.effort
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = s.FirstPause
	mark, tries := time.Now(), 0
	for {
		err := fetch()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case final(err):
			var coded *release.Error
			errors.As(err, &coded)
			return coded
		}
		away := errors.As(err, new(unreachable))
		now := time.Now()
		if e.renewed() {
			tries = 0
			pauses.Reset()
		} else {
			tries++
			if !away {
				e.counted += now.Sub(mark)
			}
		}
		mark = now
		if e.since.IsZero() {
			e.since = now
		}
		limit := e.Limit
		if name == release.ManifestName && errors.As(err, new(absent)) {
			limit = 0 // there is no such version: whoever requested it should know soon
		}
		if tries >= s.Tries && (e.Limit == 0 || !away && e.counted >= limit) {
			return s.gaveUp(src.Describe(name), tries, err)
		}
		e.waiting = true
		e.Waiting(Wait{
			Reason: fmt.Sprintf("the release host: fetch %s: %v", src.Describe(name), err),
			Away:   away, Since: e.since, Counted: e.counted, Left: max(0, limit-e.counted), Have: e.best,
		})
		if err := sleep(ctx, s.pause(pauses, err, away)); err != nil {
			return err
		}
	}
}

// gaveUp is the error of a fetch whose patience has ended with err.
func (s *Stager) gaveUp(what string, tries int, err error) error {
	code := release.NetworkError
	var coded *release.Error
	if errors.As(err, &coded) {
		code = coded.Code
	}
	if s.effort.Limit == 0 {
		return release.Errorf(code, "fetch %s: gave up after %d tries: %w", what, tries, err)
	}
	return release.Errorf(code, "fetch %s: gave up after %v without progress: %w", what, s.effort.counted.Round(time.Second), err)
}

// pause returns how long to wait after err.
func (s *Stager) pause(pauses *backoff.ExponentialBackOff, err error, away bool) time.Duration {
	var asked *backoff.RetryAfterError
	if errors.As(err, &asked) {
		pauses.Reset()
		return asked.Duration
	}
	pauses.MaxInterval = s.MaxPause
	if away {
		pauses.MaxInterval = min(s.MaxPause, max(minAwayPause, min(maxAwayPause, time.Since(s.effort.since)/40)))
	}
	return min(pauses.NextBackOff(), 2*pauses.MaxInterval)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// final reports whether another attempt cannot help.
func final(err error) bool {
	var coded *release.Error
	var again retryable
	return errors.As(err, &coded) && !errors.As(err, &again)
}
