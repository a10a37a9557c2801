package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// One password is hashed at a time, sources take turns, whoever signed in before
// goes first, and what would wait too long is refused at once.
func TestHashQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var q hashQueue
		var order []string // written by whoever has the turn
		first, err := q.enter(t.Context(), stranger, "a", "n")
		if err != nil {
			t.Fatal(err)
		}
		canceled, cancel := context.WithCancel(t.Context())
		wait := func(ctx context.Context, class int, source, label string) {
			go func() {
				leave, err := q.enter(ctx, class, source, label)
				if err != nil {
					label = fmt.Sprintf("%s: %v", label, err)
				} else {
					defer leave()
				}
				order = append(order, label)
			}()
			synctest.Wait()
		}
		wait(t.Context(), stranger, "a", "a2")
		wait(t.Context(), stranger, "a", "a3")
		if _, err := q.enter(t.Context(), stranger, "a", "a4"); !errors.Is(err, ErrBusy) {
			t.Errorf("a fourth of one source: %v", err)
		}
		wait(t.Context(), stranger, "b", "b1")
		wait(canceled, stranger, "c", "c1")
		wait(t.Context(), own, "d", "d1")
		cancel()
		synctest.Wait()
		first()
		synctest.Wait()
		if want := []string{"c1: context canceled", "d1", "a2", "b1", "a3"}; !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
		if q.running || len(q.held) != 0 || q.inAll != [classes]int{} || len(q.turns[stranger])+len(q.waiting[stranger]) != 0 {
			t.Errorf("left: %+v", &q)
		}

		// In all, and of one name.
		var leaves []func()
		ctx, stop := context.WithCancel(t.Context())
		enter := func(class int, source, name string) error {
			done := make(chan error, 1)
			go func() {
				leave, err := q.enter(ctx, class, source, name)
				if err == nil {
					leaves = append(leaves, leave)
				}
				done <- err
			}()
			synctest.Wait()
			select {
			case err := <-done:
				return err
			default:
				return nil // it waits
			}
		}
		for i := range hashesByName {
			if err := enter(stranger, fmt.Sprint("s", i), "n"); err != nil {
				t.Errorf("%d of a name: %v", i, err)
			}
		}
		if err := enter(stranger, "other", "n"); !errors.Is(err, ErrBusy) {
			t.Errorf("one more of a name: %v", err)
		}
		for i := hashesByName; i < hashesInAll; i++ {
			if err := enter(stranger, fmt.Sprint("s", i), fmt.Sprint("n", i)); err != nil {
				t.Errorf("%d in all: %v", i, err)
			}
		}
		if err := enter(stranger, "other", "other"); !errors.Is(err, ErrBusy) {
			t.Errorf("one more in all: %v", err)
		}
		if err := enter(own, "other", "n"); err != nil {
			t.Errorf("of somebody who signed in before: %v", err)
		}
		stop()
		synctest.Wait()
		for _, leave := range leaves {
			leave()
		}
		if q.running || len(q.held) != 0 || q.inAll != [classes]int{} {
			t.Errorf("left: %+v", &q)
		}
	})
}

// A name that is guessed from many sources is slowed down for strangers only after
// many, and what is remembered is bounded.
func TestAttempts(t *testing.T) {
	t.Parallel()
	var a attempts
	now := time.Now()
	for i := range 5 {
		if _, wait := a.take(now.Add(time.Duration(i)*time.Second), limit{"k", 5}); wait != 0 {
			t.Errorf("attempt %d waits %v", i, wait)
		}
	}
	if _, wait := a.take(now.Add(10*time.Second), limit{"other", 5}, limit{"k", 5}); wait != 50*time.Second {
		t.Errorf("the sixth waits %v", wait)
	}
	if len(a.at["other"]) != 0 {
		t.Error("what was refused is counted")
	}
	giveBack, wait := a.take(now.Add(time.Minute), limit{"k", 5}) // the first one is over
	if wait != 0 {
		t.Errorf("after a minute: %v", wait)
	}
	giveBack()
	if _, wait := a.take(now.Add(time.Minute), limit{"k", 5}); wait != 0 {
		t.Errorf("after it was given back: %v", wait)
	}
	for i := range 2 * maxAttemptKeys {
		_, wait = a.take(now.Add(time.Minute), limit{fmt.Sprint(i), 5})
	}
	if len(a.at) > maxAttemptKeys || wait == 0 {
		t.Errorf("%d keys are remembered, wait %v", len(a.at), wait)
	}
	if _, wait := a.take(now.Add(time.Minute), limit{"k", 5}); wait == 0 {
		t.Error("room was made by forgetting who is locked out")
	}
	if _, wait := a.take(now.Add(3*time.Minute), limit{"new", 5}); wait != 0 || len(a.at) != 1 {
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
		if got := sourceOf(addr); got != want {
			t.Errorf("%q: %q, want %q", addr, got, want)
		}
	}
}

// The list of pending nodes is bounded, and a source that fills it gives way.
func TestPendingNodesAreBounded(t *testing.T) {
	t.Parallel()
	var p pendingNodes
	now := time.Now()
	add := func(source string, i int) bool {
		now = now.Add(time.Millisecond)
		return p.add(pendingNode{PendingNode: api.PendingNode{ID: fmt.Sprint(source, " ", i), Address: source, FirstSeen: now, LastSeen: now}, hash: "h"})
	}
	for s := range pendingInAll / pendingBySource {
		for i := range pendingBySource {
			if !add(fmt.Sprint("s", s), i) {
				t.Fatalf("source %d, node %d", s, i)
			}
		}
	}
	for i := range 5 {
		if !add("late", i) {
			t.Errorf("node %d of a new source", i)
		}
	}
	if n := len(p.shown()); n != pendingInAll {
		t.Errorf("%d are listed", n)
	}
	// A node that tries again stays, however many ids another one of its source makes up.
	for range 2 {
		add("late", 0)
	}
	for i := range 3 * pendingBySource {
		add("late", 1000+i)
	}
	if _, err := p.get("late 0"); err != nil {
		t.Error("a node that tries again made room for made-up ids")
	}
	if n := len(p.shown()); n > pendingInAll {
		t.Errorf("%d are listed", n)
	}
	// What was dismissed takes nobody's place.
	for _, n := range p.shown() {
		p.dismiss(n.ID)
	}
	if !add("late", 7) || !add("new", 1) || len(p.shown()) != 2 {
		t.Errorf("after all were dismissed %d are listed", len(p.shown()))
	}
	if len(p.by) > 2*pendingInAll {
		t.Errorf("%d are remembered", len(p.by))
	}
	now = now.Add(pendingKept + time.Second)
	if p.expire(now); len(p.shown()) != 0 {
		t.Errorf("%d are kept that do not try again", len(p.by))
	}
}
