package nodes

import (
	"fmt"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// The list of pending nodes is bounded, and a source that fills it makes room for others.
func TestPendingNodesAreBounded(t *testing.T) {
	t.Parallel()
	var p Pending
	now := time.Now()
	add := func(source string, i int) bool {
		now = now.Add(time.Millisecond)
		return p.add(PendingNode{PendingNode: api.PendingNode{ID: fmt.Sprint(source, " ", i), Address: source, FirstSeen: now, LastSeen: now}, SecretHash: "h"})
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
	if n := len(p.List()); n != pendingInAll {
		t.Errorf("%d are listed", n)
	}
	// A node that tries again stays, however many ids another one of its source makes up.
	for range 2 {
		add("late", 0)
	}
	for i := range 3 * pendingBySource {
		add("late", 1000+i)
	}
	if _, err := p.Get("late 0"); err != nil {
		t.Error("a node that tries again made room for made-up ids")
	}
	if n := len(p.List()); n > pendingInAll {
		t.Errorf("%d are listed", n)
	}
	// A dismissed node uses no place in the list.
	for _, n := range p.List() {
		p.Dismiss(n)
	}
	if !add("late", 7) || !add("new", 1) || len(p.List()) != 2 {
		t.Errorf("after all were dismissed %d are listed", len(p.List()))
	}
	if len(p.by) > 2*pendingInAll {
		t.Errorf("%d are remembered", len(p.by))
	}
	now = now.Add(pendingKept + time.Second)
	if p.expire(now); len(p.List()) != 0 {
		t.Errorf("%d are kept that do not try again", len(p.by))
	}
}
