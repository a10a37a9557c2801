package store_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// The time between two records is an outage if it is longer than the gap. A clock that was
// set back ends those of the future, and deletes only those that would begin there. Outages
// with a short run between them are one.
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
	const gap = 15 * time.Second
	alive(0, 0)
	alive(5*time.Second, gap)
	want("")
	alive(time.Minute, gap)
	want("5s-1m0s ")
	for after := time.Minute; after <= 2*time.Minute; after += 5 * time.Second {
		alive(after, gap)
	}
	must(t, s.Close())
	s = open(t, path)
	alive(time.Hour, 0)
	want("5s-1m0s 2m0s-1h0m0s ")
	alive(time.Hour-10*time.Second, gap) // a clock that was some seconds fast at the start
	want("5s-1m0s 2m0s-59m50s ")
	alive(time.Hour+5*time.Second, gap)
	want("5s-1m0s 2m0s-59m50s ")
	for after := time.Hour; after <= time.Hour+time.Minute; after += 5 * time.Second {
		alive(after, gap)
	}
	alive(24*365*time.Hour, gap) // a clock that is a year off, and corrected
	alive(time.Hour+70*time.Second, gap)
	want("5s-1m0s 2m0s-59m50s 1h1m0s-1h1m10s ")
	alive(time.Hour, gap)
	want("5s-1m0s 2m0s-59m50s ")
	alive(time.Hour+5*time.Second, 0) // it ran for 10 s
	want("5s-1m0s 2m0s-1h0m5s ")
}

// A manager in a crash loop forgets nothing of its outage, at whatever pace it starts.
func TestOutagesOfACrashLoop(t *testing.T) {
	t.Parallel()
	for _, run := range []time.Duration{10 * time.Second, 20 * time.Second} { // after each start
		t.Run(run.String(), func(t *testing.T) {
			t.Parallel()
			testOutagesOfACrashLoop(t, run)
		})
	}
}

func testOutagesOfACrashLoop(t *testing.T, run time.Duration) {
	const starts, away = 1010, 6 * time.Second
	s := open(t, filepath.Join(t.TempDir(), "db"))
	at, want := now, time.Duration(0)
	must(t, s.RecordAlive(t.Context(), at, 0))
	for range starts {
		at, want = at.Add(away), want+away
		must(t, s.RecordAlive(t.Context(), at, 0))
		if run > 0 {
			at = at.Add(run)
			must(t, s.RecordAlive(t.Context(), at, run))
		}
	}
	list, err := s.Outages(t.Context())
	must(t, err)
	recorded := time.Duration(0)
	for _, o := range list {
		recorded += o.Ended.Sub(o.Began)
	}
	short := run <= 15*time.Second
	if short {
		want += (starts - 1) * run // a short run is part of the outage
	}
	if recorded != want || short && len(list) != 1 {
		t.Errorf("away for %v, recorded %v in %d outages", want, recorded, len(list))
	}
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
