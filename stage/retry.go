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
	// Config.Tries tries without progress, also while the host cannot be reached. A file that
	// the host says it does not have is looked for during Config.MissingFor at most, and so is
	// the rest of a form of the release beside which there is another one.
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
	Left    time.Duration // of Patience.Limit, or of Config.MissingFor
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
	b, since := p.Before, p.Before.Since
	if !since.IsZero() { // by the clock of another start: one without a clock may lie ahead
		now := time.Now()
		since = now.Add(-max(0, now.Sub(since))) // with a monotonic reading
	}
	s.effort = &effort{Patience: p, best: b.Have, counted: b.Counted, since: since, waiting: b != Wait{}}
	s.effort.begin(s)
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

	tries   int                 // without progress; one try of each name is one
	missing map[string]*absence // by URL
	mark    time.Time           // until when the time was looked at
	pauses  *backoff.ExponentialBackOff
	names   int  // of the repository, of which each has a try in turn
	more    bool // the present name is not the last one of this turn
	stay    bool // the present file stays with the present name
	ended   bool // the patience
}

// absence counts how often in a row the host did not have a file, or had another of that name.
type absence struct {
	times int
	last  time.Time     // of the last answer, or outage
	total time.Duration // between such answers, without outages
}

// missed records what a try of the file of that URL said, and returns what the tries say so
// far; nil: the last one said something else.
func (e *effort) missed(url string, err error, away bool) *absence {
	m, now := e.missing[url], time.Now()
	switch isAbsent := errors.As(err, new(absent)) || errors.As(err, new(otherFile)); {
	case isAbsent && m == nil:
		m = &absence{1, now, 0}
		e.missing[url] = m
	case isAbsent:
		m.times++
		m.total += now.Sub(m.last)
		m.last = now
	case away && m != nil:
		m.last = now
		return nil
	default:
		delete(e.missing, url)
		return nil
	}
	return m
}

// begin begins the fetches of one file, or of a manifest with its signature.
func (e *effort) begin(s *Stager) {
	e.tries, e.missing, e.mark = 0, map[string]*absence{}, time.Now()
	e.names, e.more, e.stay, e.ended = 1, false, false, false
	e.pauses = backoff.NewExponentialBackOff()
	e.pauses.InitialInterval = s.FirstPause
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

// another ends the try of one name of a repository, because that of the next one is due.
type another struct{ error }

// retry runs fetch, of the file name of src, until it succeeds, fails for good (a
// *release.Error that is not retryable), or the patience ends. Where the repository has other
// names it returns after each try, with another.
func (s *Stager) retry(ctx context.Context, src Source, name string, fetch func() error) error {
	e := s.effort
	what := src.Describe(name)
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
		gone := e.missed(what, err, away)
		if gone != nil && gone.times >= s.Tries && (e.Limit == 0 || gone.total >= s.MissingFor) {
			return gaveUp(what, fmt.Sprintf("%d tries in %v", gone.times, gone.total.Round(time.Second)), err)
		}
		if e.more && !e.stay {
			return another{err}
		}
		now := time.Now()
		if e.renewed() {
			e.tries = 0
			e.pauses.Reset()
		} else {
			e.tries++
			if !away {
				e.counted += now.Sub(e.mark)
			}
		}
		e.mark = now
		if e.since.IsZero() {
			e.since = now
		}
		if e.tries >= s.Tries && (e.Limit == 0 || !away && e.counted >= e.Limit) {
			e.ended = true
			after := fmt.Sprintf("%v without progress", e.counted.Round(time.Second))
			if e.Limit == 0 {
				after = fmt.Sprintf("%d tries", e.tries)
			}
			return gaveUp(what, after, err)
		}
		pause, left := s.pause(err, away), max(0, e.Limit-e.counted)
		if gone != nil && e.Limit > 0 {
			left = min(left, max(0, s.MissingFor-gone.total))
			pause = min(pause, max(left, s.FirstPause))
		}
		e.waiting = true
		e.Waiting(Wait{
			Reason: fmt.Sprintf("the release host: fetch %s: %v", what, err),
			Away:   away, Since: e.since, Counted: e.counted, Left: left, Have: e.best,
		})
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		if e.names > 1 && !e.stay {
			return another{err}
		}
	}
}

// gaveUp is the error of a fetch that ended with err after some time, or tries.
func gaveUp(what, after string, err error) error {
	code := release.NetworkError
	var coded *release.Error
	if errors.As(err, &coded) {
		code = coded.Code
	}
	return release.Errorf(code, "fetch %s: gave up after %s: %w", what, after, err)
}

// pause returns how long to wait after err.
func (s *Stager) pause(err error, away bool) time.Duration {
	pauses := s.effort.pauses
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
