package limit

import (
	"sync"
	"time"
)

const (
	window = time.Minute
	// maxKeys is how many keys Attempts remembers. It forgets none to make room: that
	// would lift the limits of a person with many addresses.
	maxKeys = 30_000
)

// Attempts counts attempts by key within the last minute. The zero value is ready.
type Attempts struct {
	mu    sync.Mutex
	at    map[string][]time.Time
	swept time.Time
}

// Rule limits the attempts of a key.
type Rule struct {
	Key       string
	PerMinute int
}

// Take counts an attempt at now against all rules, and returns a function that
// uncounts the attempt. If a rule's limit is reached, Take counts nothing and returns how
// long to wait.
func (a *Attempts) Take(now time.Time, rules ...Rule) (takeBack func(), wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at == nil {
		a.at = make(map[string][]time.Time)
	}
	for _, r := range rules {
		wait = max(wait, a.wait(r, now))
	}
	if wait == 0 && len(a.at)+len(rules) > maxKeys {
		wait = a.sweep(now)
	}
	if wait > 0 {
		return nil, wait
	}
	for _, r := range rules {
		a.at[r.Key] = append(a.at[r.Key], now)
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, r := range rules {
			a.remove(r.Key, now)
		}
	}, 0
}

// wait removes expired attempts, and returns how long the rule refuses; 0: it allows
// an attempt.
func (a *Attempts) wait(r Rule, now time.Time) time.Duration {
	at := a.at[r.Key]
	for len(at) > 0 && now.Sub(at[0]) >= window {
		at = at[1:]
	}
	if len(at) == 0 {
		delete(a.at, r.Key)
	} else {
		a.at[r.Key] = at
	}
	if len(at) < r.PerMinute {
		return 0
	}
	return window - now.Sub(at[len(at)-r.PerMinute])
}

func (a *Attempts) remove(key string, when time.Time) {
	for i, t := range a.at[key] {
		if t.Equal(when) {
			a.at[key] = append(a.at[key][:i:i], a.at[key][i+1:]...)
			break
		}
	}
	if len(a.at[key]) == 0 {
		delete(a.at, key)
	}
}

// sweep removes expired keys, at most once a second because it visits all of them.
// It returns how long to wait if that made no room.
func (a *Attempts) sweep(now time.Time) time.Duration {
	if now.Sub(a.swept) >= time.Second {
		a.swept = now
		for key, at := range a.at {
			if now.Sub(at[len(at)-1]) >= window {
				delete(a.at, key)
			}
		}
		if len(a.at) < maxKeys-maxKeys/10 {
			return 0
		}
	}
	return time.Second
}
