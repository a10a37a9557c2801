package limit

import (
	"fmt"
	"testing"
	"time"
)

// Attempts are limited by key and minute, and the memory for them is bounded.
func TestAttempts(t *testing.T) {
	t.Parallel()
	var a Attempts
	now := time.Now()
	for i := range 5 {
		if _, wait := a.Take(now.Add(time.Duration(i)*time.Second), Rule{"k", 5}); wait != 0 {
			t.Errorf("attempt %d waits %v", i, wait)
		}
	}
	if _, wait := a.Take(now.Add(10*time.Second), Rule{"other", 5}, Rule{"k", 5}); wait != 50*time.Second {
		t.Errorf("the sixth waits %v", wait)
	}
	if len(a.at["other"]) != 0 {
		t.Error("what was refused is counted")
	}
	giveBack, wait := a.Take(now.Add(time.Minute), Rule{"k", 5}) // the first one is over
	if wait != 0 {
		t.Errorf("after a minute: %v", wait)
	}
	giveBack()
	if _, wait := a.Take(now.Add(time.Minute), Rule{"k", 5}); wait != 0 {
		t.Errorf("after it was given back: %v", wait)
	}
	for i := range 2 * maxKeys {
		_, wait = a.Take(now.Add(time.Minute), Rule{fmt.Sprint(i), 5})
	}
	if len(a.at) > maxKeys || wait == 0 {
		t.Errorf("%d keys are remembered, wait %v", len(a.at), wait)
	}
	if _, wait := a.Take(now.Add(time.Minute), Rule{"k", 5}); wait == 0 {
		t.Error("room was made by forgetting who is locked out")
	}
	if _, wait := a.Take(now.Add(3*time.Minute), Rule{"new", 5}); wait != 0 || len(a.at) != 1 {
		t.Errorf("later: %d keys, wait %v", len(a.at), wait)
	}
}

func TestSourceOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"192.0.2.1:443": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:5": "192.0.2.1",
		"[2001:db8:1:2ff:3::4]:443": "2001:db8:1:200::/56", "2001:db8:1:200:9::": "2001:db8:1:200::/56", "[fe80::1%eth0]:1": "fe80::/56",
		"": "", "pipe": "pipe",
	} {
		if got := SourceOf(addr); got != want {
			t.Errorf("%q: %q, want %q", addr, got, want)
		}
	}
}
