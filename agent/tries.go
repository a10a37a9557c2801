package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// tries is what is known of this process's attempts to reach its managers. The session's
// loop (connect) reports each attempt; a trial asks for attempts and their results.
type tries struct {
	mu     sync.Mutex
	wake   chan struct{} // ends a pause of connect
	asked  time.Time     // connect tries each URL once from here, without pauses
	up     time.Time     // since when a session is authenticated; zero: none is
	hangUp func(error)   // ends that session
	held   bool          // a session of this process proved the link
	failed map[string]attempt
	keys   map[string]time.Time // of managers that this process accepted: when it last did
}

// attempt is one that failed.
type attempt struct {
	began time.Time
	err   error
}

func newTries() *tries {
	return &tries{wake: make(chan struct{}, 1), failed: make(map[string]attempt), keys: make(map[string]time.Time)}
}

// keepKeys is how long a key is remembered. A round is shorter.
const keepKeys = time.Hour

// opened reports that the manager with a key was accepted by this process.
func (t *tries) opened(key string) {
	if key == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.keys, func(_ string, at time.Time) bool { return time.Since(at) > keepKeys })
	t.keys[key] = time.Now()
}

// authenticated reports that a session begins, which hangUp ends.
func (t *tries) authenticated(hangUp func(error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.up, t.hangUp = time.Now(), hangUp
}

// heard reports that the present session got an answer to what it sent at least heldFor
// after its authentication: the link is proven.
func (t *tries) heard() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = true
}

// ended reports that an attempt at url, which began then, is over.
func (t *tries) ended(url string, began time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.up, t.hangUp = time.Time{}, nil
	t.failed[url] = attempt{began, err}
}

// due reports whether a trial waits for an attempt at one of the urls.
func (t *tries) due(urls []string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isDue(urls)
}

func (t *tries) isDue(urls []string) bool {
	return slices.ContainsFunc(urls, func(u string) bool { return t.failed[u].began.Before(t.asked) })
}

// proven reports whether a session of this process was held for heldFor.
func (t *tries) proven() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held
}

// keysSince returns the keys of the managers that this process accepted since then.
func (t *tries) keysSince(then time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(t.keys)) {
		if !t.keys[k].Before(then) {
			keys = append(keys, k)
		}
	}
	return keys
}

// silence is how long the answer may take that proves a session: it is read after what the
// session is busy with.
const silence = pongTime + handlerTimeout

// errSilent ends a session in which the manager answers nothing.
var errSilent = errors.New("the manager gives no answer in its session")

// try has connect try every URL from now on, and waits until one attempt is held, or
// all have failed. A session that is up already may still be held; one that has no answer
// by then is ended, so that the other URLs have their turn.
func (t *tries) try(ctx context.Context, urls []string) (held bool, why error) {
	t.mu.Lock()
	if held = t.held; !held {
		t.asked = time.Now()
	}
	t.mu.Unlock()
	if held {
		return true, nil
	}
	wake(t.wake)
	defer t.rest()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		t.mu.Lock()
		held, over := t.held, t.up.IsZero() && !t.isDue(urls)
		if !held && !t.up.IsZero() && t.hangUp != nil && time.Since(t.up) > pace(heldFor)+limit(silence) {
			t.hangUp(errSilent)
			t.hangUp = nil
		}
		if over {
			var errs []error
			for _, u := range urls {
				errs = append(errs, fmt.Errorf("%s: %w", u, t.failed[u].err))
			}
			why = errors.Join(errs...)
		}
		t.mu.Unlock()
		if held || over {
			return held, why
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick.C:
		}
	}
}

// rest ends what try asked for: from now on connect makes its pauses again.
func (t *tries) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = time.Time{}
	select {
	case <-t.wake:
	default:
	}
}
