//go:build !sim

package agent

import (
	"context"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/wire"
)

// waitingCommand returns an agent whose state.json has the command "c" in progress.
func waitingCommand(t *testing.T, dir string) *onTrial {
	t.Helper()
	o := newTrial(t, dir)
	if _, err := doUnlocked(t, o.c.Layout, func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.Accept(s, state.Command{ID: "c", Version: release.MustVersion("1.2.0")}), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *onTrial) recordedWait(t *testing.T) *state.Wait {
	t.Helper()
	res, err := o.c.Layout.Read()
	if err != nil {
		t.Fatal(err)
	}
	c, _ := res.State.Command("c")
	return c.Wait
}

// inRealTime repeats do until it has worked: a child of another test may have the lock.
func inRealTime(do func(), worked func() bool) {
	for range 1000 {
		if do(); worked() {
			return
		}
		pause := syscall.NsecToTimespec(int64(10 * time.Millisecond))
		syscall.Nanosleep(&pause, nil)
	}
}

// A short outage is shown and not written; a long one is written once, and once again when it
// ends; time that counts is written now and then, and when the process ends.
func TestWhatADownloadWaitsForIsRecorded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := waitingCommand(t, dir)
		o.target = "1.2.0"
		ctx, cancel := context.WithCancel(t.Context())
		w := o.newDownloadWait(ctx, state.Command{ID: "c"})
		since := time.Now()
		away := stage.Wait{Reason: "the release host: fetch https://h/x: no route to host", Away: true, Since: since, Have: 7}
		w.tell(away)
		if h := o.holdOf(nil); h == nil || h.Reason != away.Reason || !h.Until.IsZero() || o.recordedWait(t) != nil {
			t.Errorf("at once: %+v, recorded %+v", h, o.recordedWait(t))
		}
		w.tell(stage.Wait{})
		if o.holdOf(nil) != nil || !strings.HasPrefix(o.status.String(), "staging 1.2.0") {
			t.Errorf("afterwards: %+v, %q", o.holdOf(nil), o.status)
		}
		writes := 0
		var last *state.Wait
		count := func() {
			if r := o.recordedWait(t); (r == nil) != (last == nil) || r != nil && *r != *last {
				last = r
				writes++
			}
		}
		for range 3600 { // an hour without a network
			time.Sleep(time.Second)
			away.Since = since
			w.tell(away)
			count()
		}
		if writes != 1 || last == nil || last.Have != 7 || last.CountedSecs != 0 || !last.Until.IsZero() {
			t.Errorf("%d writes: %+v", writes, last)
		}
		busy := away
		busy.Away = false
		for i := range 3600 { // an hour of answers
			time.Sleep(time.Second)
			busy.Counted, busy.Left = time.Duration(i)*time.Second, 24*time.Hour-time.Duration(i)*time.Second
			w.tell(busy)
			count()
		}
		if writes < 10 || writes > 15 || last.Until.IsZero() {
			t.Errorf("%d writes: %+v", writes, last)
		}
		if h := o.holdOf(&wire.Hold{Reason: "a session", Since: since}); !strings.HasPrefix(h.Reason, "a session; and its next download for the release host") {
			t.Errorf("an unproven version: %+v", h)
		}
		cancel() // the process ends
		inRealTime(w.interrupted, func() bool { r := o.recordedWait(t); return r != nil && r.CountedSecs == 3599 })
		if last = o.recordedWait(t); last == nil || last.CountedSecs != 3599 {
			t.Errorf("when it ends: %+v", last)
		}
		w = o.newDownloadWait(t.Context(), state.Command{ID: "c", Wait: last}) // the next start
		if b := w.before(); b.Counted != 3599*time.Second || b.Have != 7 || !b.Since.Equal(since) {
			t.Errorf("the next start: %+v", b)
		}
		inRealTime(func() { w.tell(stage.Wait{}) }, func() bool { return o.recordedWait(t) == nil })
		if o.recordedWait(t) != nil {
			t.Error("it continues, and is recorded as waiting")
		}
	})
}

// A node that loses its power every four minutes comes to the end of the time all the same.
func TestTheTimeThatCountsSurvivesPowerCuts(t *testing.T) {
	t.Parallel()
	o := waitingCommand(t, t.TempDir())
	o.target = "1.2.0"
	for range 30 {
		w := o.newDownloadWait(t.Context(), state.Command{ID: "c", Wait: o.recordedWait(t)})
		before := w.before().Counted
		for m := time.Minute; m <= 4*time.Minute; m += time.Minute {
			w.tell(stage.Wait{Reason: "x", Since: time.Now().Add(-time.Hour), Counted: before + m, Left: time.Hour, Have: 1})
		}
	}
	if r := o.recordedWait(t); r == nil || r.CountedSecs < 30*3*60-60 {
		t.Errorf("after 2 h: %+v", r)
	}
}

// A host that can be reached by turns has the node neither write nor log at each try.
func TestAHostThatCanBeReachedByTurns(t *testing.T) {
	t.Parallel()
	o := waitingCommand(t, t.TempDir())
	o.target = "1.2.0"
	log := &lines{}
	o.log = logTo(log, slog.LevelDebug)
	w := o.newDownloadWait(t.Context(), state.Command{ID: "c"})
	writes, last := 0, state.Wait{}
	for i := range 200 {
		w.tell(stage.Wait{Reason: "x", Away: i%2 == 0, Since: time.Now().Add(-time.Hour), Counted: time.Duration(i) * time.Second, Left: time.Hour, Have: 1})
		if r := o.recordedWait(t); r != nil && *r != last {
			writes, last = writes+1, *r
		}
	}
	if n := strings.Count(log.String(), "the download waits for"); writes > 4 || n > 1 {
		t.Errorf("%d writes, %d lines", writes, n)
	}
}

// A process that waits records that it does, so that the bound of restarts does not end its command.
func TestEachProcessRecordsThatItWaits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := waitingCommand(t, dir)
		o.target = "1.2.0"
		w := o.newDownloadWait(t.Context(), state.Command{ID: "c", Wait: &state.Wait{Reason: "x", Since: time.Now(), Resumed: true}})
		tell := func() { w.tell(stage.Wait{Reason: "x", Away: true, Since: time.Now().Add(-time.Hour)}) }
		if tell(); o.recordedWait(t) != nil {
			t.Error("recorded at once")
		}
		time.Sleep(recordWaitAfter)
		if inRealTime(tell, func() bool { return o.recordedWait(t) != nil }); o.recordedWait(t) == nil || o.recordedWait(t).Resumed {
			t.Errorf("%+v", o.recordedWait(t))
		}
	})
}

// A device without a clock begins each start at the same time, so that what it recorded lies
// ahead. That it waits is recorded all the same: power cuts do not end the upgrade.
func TestPowerCutsWithoutAClock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := waitingCommand(t, dir)
		o.target = "1.2.0"
		since := time.Now().Add(100 * time.Hour)
		for n := 1; n <= 10; n++ {
			var c state.Command
			if _, err := doUnlocked(t, o.c.Layout, func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
				s, c = state.Resume(s, 0, now)
				return s, tr, nil
			}); err != nil || c.ID == "" {
				t.Fatalf("start %d: the upgrade is given up: %v", n, err)
			}
			w := o.newDownloadWait(t.Context(), c)
			before := w.before().Counted
			now := stage.Wait{Reason: "x", Since: since, Counted: before, Left: time.Hour, Have: 1}
			for range 59 {
				time.Sleep(time.Minute)
				now.Counted += time.Minute
				w.tell(now)
			}
			recorded := func() bool {
				r := o.recordedWait(t)
				return r != nil && !r.Resumed && time.Duration(r.CountedSecs)*time.Second >= before+30*time.Minute
			}
			if inRealTime(func() { w.tell(now) }, recorded); !recorded() {
				t.Fatalf("start %d: %+v", n, o.recordedWait(t))
			}
		}
	})
}
