//go:build !sim

package agent

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
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
		syscall.Nanosleep(&syscall.Timespec{Nsec: int64(10 * time.Millisecond)}, nil)
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
