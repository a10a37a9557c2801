package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// The time between two records is an outage if it is longer than the gap. A clock that was
// set back makes none, and takes back those of the future.
func TestOutages(t *testing.T) { each(t, testOutages) }

func testOutages(t *testing.T, path string) {
	s := open(t, path)
	alive := func(after, gap time.Duration) {
		t.Helper()
		must(t, s.RecordAlive(t.Context(), now.Add(after), gap))
	}
	want := func(text string) {
		t.Helper()
		list, err := s.Outages(t.Context())
		must(t, err)
		got := ""
		for _, o := range list {
			got += fmt.Sprintf("%v-%v ", o.Began.Sub(now), o.Ended.Sub(now))
		}
		if got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	alive(0, 0)
	alive(5*time.Second, 15*time.Second)
	want("")
	alive(time.Minute, 15*time.Second)
	want("5s-1m0s ")
	must(t, s.Close())
	s = open(t, path)
	alive(time.Hour, 0)
	want("5s-1m0s 1m0s-1h0m0s ")
	alive(time.Hour-time.Second, 0)
	want("5s-1m0s ")
	alive(time.Hour+5*time.Second, 15*time.Second)
	want("5s-1m0s ")
	alive(24*365*time.Hour, 15*time.Second) // a clock that is a year off, and corrected
	alive(time.Hour+10*time.Second, 15*time.Second)
	want("5s-1m0s ")
}

// A node's trial is that of its last health beat, and ends when another version
// authenticates, which has sent no health beat then.
func TestTrials(t *testing.T) { each(t, testTrials) }

func testTrials(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a", Version: "1.0.0", RegisteredAt: now, LastSeen: now}))
	hold := &api.Hold{Reason: "no answer", Since: now}
	must(t, s.RecordHealth(ctx, store.Node{ID: "a", Version: "1.1.0", LastSeen: now, Trial: "unproven", Hold: hold}))
	for _, version := range []string{"1.1.0", "1.0.0"} {
		must(t, s.RecordConnect(ctx, "a", version, "192.0.2.1", now.Add(time.Second)))
		n, err := s.Node(ctx, "a")
		must(t, err)
		if same := version == "1.1.0"; (n.Trial == "unproven") != same || (n.Hold != nil) != same || n.HealthAt.Equal(now) != same || n.HealthAt.IsZero() == same {
			t.Errorf("at %s: %+v", version, n)
		} else if same && *n.Hold != *hold {
			t.Errorf("waits for %+v", n.Hold)
		}
	}
	must(t, s.RecordHealth(ctx, store.Node{ID: "a", Version: "1.1.0", LastSeen: now, Trial: "guard"}))
	if n, err := s.Node(ctx, "a"); err != nil || n.Trial != "guard" || n.Hold != nil {
		t.Errorf("got %+v, %v", n, err)
	}
}
