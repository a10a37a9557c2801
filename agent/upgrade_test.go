package agent

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// A command that is sent again, after the restart that it caused for one, is
// answered with its recorded outcome and starts nothing.
func TestARepeatedCommandStartsNothing(t *testing.T) {
	t.Parallel()
	o := newTrial(t, t.TempDir())
	if _, err := o.do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		s = state.Succeed(state.Accept(s, state.Command{ID: "done", Version: release.MustVersion("1.1.0")}), "done", "staged", o.startedAt)
		s = state.Fail(state.Accept(s, state.Command{ID: "failed", Version: release.MustVersion("1.1.0")}), "failed", release.DiskFull, "no space", o.startedAt)
		return state.Accept(s, state.Command{ID: "busy", Version: release.MustVersion("1.1.0")}), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	before, err := o.c.Layout.Read()
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"done": "true staged ", "failed": "false  upgrade_disk_full", "busy": ""} {
		got := ""
		if ack := o.upgrade(t.Context(), &wire.Command{CommandID: id, Action: wire.Action{Version: "9.9.9", Channel: "stable"}}); ack != nil {
			status := ""
			if ack.Data != nil {
				status = ack.Data.Status
			}
			got = map[bool]string{true: "true ", false: "false "}[ack.Success] + status + " " + string(ack.ErrorCode)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
	after, err := o.c.Layout.Read()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(before.State.Commands, after.State.Commands) {
		t.Errorf("commands were %+v, and are %+v", before.State.Commands, after.State.Commands)
	}
}

// A root without a version has no state to record a command in.
func TestNoVersionIsInstalled(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := newTrial(t, t.TempDir())
	o.c.Layout = l
	ack := o.upgrade(t.Context(), &wire.Command{CommandID: "c", Action: wire.Action{Version: "1.1.0", Channel: "stable"}})
	if ack == nil || ack.ErrorCode != release.Internal || ack.Error != "this node cannot be upgraded: no version is installed under "+l.Root() {
		t.Errorf("got %+v", ack)
	}
}

// The event of a rollback contains the failed start's journal, once.
func TestKeepJournal(t *testing.T) {
	t.Parallel()
	o := newTrial(t, t.TempDir())
	asked := 0
	o.c.Journal = func(context.Context) ([]string, error) { asked++; return []string{"panic: no", "exit status 2"}, nil }
	o.attachJournal(t.Context()) // nothing was rolled back yet
	if asked != 0 {
		t.Error("asked without a rollback")
	}
	if _, err := o.do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		s, tr = state.Revert(s, tr, "why", o.startedAt)
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	o.attachJournal(t.Context())
	o.attachJournal(t.Context())
	entries, _, err := o.c.Layout.Outbox().List()
	if err != nil {
		t.Fatal(err)
	}
	last := entries[len(entries)-1]
	if asked != 1 || last.Event.Code != release.RolledBack || !slices.Equal(last.Event.Journal, []string{"panic: no", "exit status 2"}) {
		t.Errorf("asked %d times; %+v", asked, last.Event)
	}
	if m := event(last); !slices.Equal(m.Details.Journal, last.Event.Journal) {
		t.Errorf("on the wire: %q", m.Details.Journal)
	}
}

// The run of an attached version that is rolled back leaves the event to the next run, which adds
// the journal. Otherwise the session that still lasts would deliver it without.
func TestTheRunThatFollowsReportsTheRollback(t *testing.T) {
	t.Parallel()
	for name, isAttached := range map[string]bool{"attached": true, "linked": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newTrial(t, t.TempDir())
			if isAttached {
				o.attached = &attached{}
			}
			left := func() (n int) {
				t.Helper()
				entries, _, err := o.c.Layout.Outbox().List()
				if err != nil || len(entries) == 0 {
					t.Fatalf("%d entries, %v", len(entries), err)
				}
				for _, e := range entries {
					if o.forLater()(e) {
						n++
					}
				}
				return n
			}
			if _, err := o.do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
				s, tr = state.Revert(s, tr, "why", o.startedAt)
				return s, tr, nil
			}); err != nil {
				t.Fatal(err)
			}
			if n := left(); (n == 1) != isAttached {
				t.Errorf("%d entries are left to the next run", n)
			}
			o.c.Journal = func(context.Context) ([]string, error) { return []string{"it fails"}, nil }
			o.attachJournal(t.Context())
			if n := left(); n != 0 {
				t.Errorf("%d entries with a journal are left to the next run", n)
			}
		})
	}
}

// An upgrade that a version on trial was staging goes on when the version has a result again.
func TestAResumedUpgradeWaitsForTheTrial(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		after time.Duration // the version is unproven; 0: never
		stop  time.Duration // the process ends; 0: never
		want  bool
		took  time.Duration
	}{
		"unproven": {30 * time.Second, 0, true, 30 * time.Second},
		"never":    {0, 0, true, 2 * time.Minute},
		"stopped":  {0, 10 * time.Second, false, 10 * time.Second},
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			o := newTrial(t, dir)
			s, l := o.res.State, o.c.Layout
			if err := errors.Join(l.RecordSwap(state.SwapRecord{TrialID: s.TrialID}), l.RecordStarts(state.StartsRecord{TrialID: s.TrialID, Number: 1})); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.stop > 0 {
				time.AfterFunc(tt.stop, cancel)
			}
			if tt.after > 0 {
				time.AfterFunc(tt.after, func() { l.RecordJudge(state.JudgeRecord{TrialID: s.TrialID, Start: 1, Stage: state.Unproven}) })
			}
			began := time.Now()
			if got, took := o.awaitResult(ctx), time.Since(began); got != tt.want || took < tt.took || took > tt.took+2*time.Second {
				t.Errorf("%s: %t after %v", name, got, took)
			}
		})
	}
}
