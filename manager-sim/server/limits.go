package server

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// sourceOf returns what attempts from an address are counted by: the address, and
// for IPv6 its network of 56 bits, which is what one site usually has.
func sourceOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		addr = host
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return addr
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 56).Masked().String()
}

const (
	attemptWindow = time.Minute
	// maxAttemptKeys bounds what attempts remembers. Nothing is forgotten to make
	// room: that would lift the limits of somebody who has many addresses.
	maxAttemptKeys = 30_000
)

// attempts counts attempts by key within the last minute.
type attempts struct {
	mu    sync.Mutex
	at    map[string][]time.Time
	swept time.Time
}

// limit is how many attempts a key may make in a minute.
type limit struct {
	key  string
	most int
}

// take counts an attempt now against all limits, and returns a function that gives
// it back. If one is reached, it counts nothing and returns how long to wait.
func (a *attempts) take(now time.Time, limits ...limit) (giveBack func(), wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at == nil {
		a.at = make(map[string][]time.Time)
	}
	for _, l := range limits {
		wait = max(wait, a.wait(l, now))
	}
	if wait == 0 && len(a.at)+len(limits) > maxAttemptKeys {
		wait = a.sweep(now)
	}
	if wait > 0 {
		return nil, wait
	}
	for _, l := range limits {
		a.at[l.key] = append(a.at[l.key], now)
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, l := range limits {
			a.remove(l.key, now)
		}
	}, 0
}

// wait forgets what is over, and returns how long the limit holds; 0: it is not
// reached.
func (a *attempts) wait(l limit, now time.Time) time.Duration {
	at := a.at[l.key]
	for len(at) > 0 && now.Sub(at[0]) >= attemptWindow {
		at = at[1:]
	}
	if len(at) == 0 {
		delete(a.at, l.key)
	} else {
		a.at[l.key] = at
	}
	if len(at) < l.most {
		return 0
	}
	return attemptWindow - now.Sub(at[len(at)-l.most])
}

func (a *attempts) remove(key string, when time.Time) {
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

// sweep makes room, at most once a second: it costs a look at all keys. If there
// is none, it returns how long to wait.
func (a *attempts) sweep(now time.Time) time.Duration {
	if now.Sub(a.swept) >= time.Second {
		a.swept = now
		for key, at := range a.at {
			if now.Sub(at[len(at)-1]) >= attemptWindow {
				delete(a.at, key)
			}
		}
		if len(a.at) < maxAttemptKeys-maxAttemptKeys/10 {
			return 0
		}
	}
	return time.Second
}

// TryLater refuses something that may be tried again after Wait.
type TryLater struct {
	Wait time.Duration
	why  string
	is   error
}

func (e *TryLater) Error() string { return fmt.Sprintf("%s; try again in %d s", e.why, e.Seconds()) }

// Unwrap returns ErrLocked or ErrBusy.
func (e *TryLater) Unwrap() error { return e.is }

// Seconds is Wait, rounded up, as the header Retry-After has it.
func (e *TryLater) Seconds() int { return seconds(e.Wait) }

func seconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }
