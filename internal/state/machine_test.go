package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/google/go-cmp/cmp"
)

var (
	now = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	v1  = release.MustVersion("1.0.0")
	v2  = release.MustVersion("1.1.0")
	v3  = release.MustVersion("1.2.0")
	no  = release.Version{}
)

// at returns a state in status: v1 is good, v2 the target.
func at(status Status) State {
	s := State{Schema: Schema, Status: status, Good: v1}
	switch status {
	case "":
		return State{}
	case StagedManual, RolledBack:
		s.Target = v2
	case PendingHealth:
		s.Target, s.Previous, s.MaxBootAttempts, s.TrialID, s.CommandID = v2, v1, 3, "t", "c"
	}
	return s
}

func tree(current, lastGood release.Version) Tree {
	return Tree{Current: current, Previous: v1, LastGood: lastGood, Versions: []release.Version{v3, v2, v1}, AtStart: true}
}

// Every status is combined with every target of current: the good version, the target,
// a third version, and none. want is status, current, last-good and the target. A
// second Reconcile must change nothing.
func TestReconcileEveryPair(t *testing.T) {
	t.Parallel()
	started := at(PendingHealth)
	started.BootAttempts = 1
	tests := []struct {
		state State
		cur   release.Version
		want  string
	}{
		{at(""), v1, "stable 1.0.0 1.0.0 "},
		{at(""), v2, "stable 1.0.0 1.0.0 "}, // never proved healthy: rolled back to last-good
		{at(""), v3, "stable 1.0.0 1.0.0 "},
		{at(""), no, "stable 1.0.0 1.0.0 "},

		{at(Stable), v1, "stable 1.0.0 1.0.0 "},
		{at(Stable), v2, "pending_health 1.1.0 1.0.0 1.1.0"}, // an operator changed the link: on trial
		{at(Stable), v3, "pending_health 1.2.0 1.0.0 1.2.0"},
		{at(Stable), no, "stable 1.0.0 1.0.0 "},

		{at(StagedManual), v1, "staged_manual 1.0.0 1.0.0 1.1.0"},
		{at(StagedManual), v2, "pending_health 1.1.0 1.0.0 1.1.0"},
		{at(StagedManual), v3, "pending_health 1.2.0 1.0.0 1.2.0"},
		{at(StagedManual), no, "staged_manual 1.0.0 1.0.0 1.1.0"},

		{at(PendingHealth), v2, "pending_health 1.1.0 1.0.0 1.1.0"}, // the trial
		{at(PendingHealth), v1, "stable 1.0.0 1.0.0 "},              // a crash before the swap
		{started, v1, "rolled_back 1.0.0 1.0.0 1.1.0"},              // a revert that could not be recorded
		{at(PendingHealth), v3, "pending_health 1.2.0 1.0.0 1.2.0"},
		{at(PendingHealth), no, "pending_health 1.1.0 1.0.0 1.1.0"}, // somebody removed the link,

		{at(RolledBack), v1, "rolled_back 1.0.0 1.0.0 1.1.0"},
		{at(RolledBack), v2, "rolled_back 1.0.0 1.0.0 1.1.0"}, // a crash in the revert
		{at(RolledBack), v3, "pending_health 1.2.0 1.0.0 1.2.0"},
		{at(RolledBack), no, "rolled_back 1.0.0 1.0.0 1.1.0"},
	}
	for _, tt := range tests {
		name := fmt.Sprintf("%s starts %d current %s", tt.state.Status, tt.state.BootAttempts, tt.cur)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, tr, note := Reconcile(tt.state, tree(tt.cur, v1), now)
			if got := fmt.Sprintf("%s %s %s %s", s.Status, tr.Current, tr.LastGood, s.Target); got != tt.want {
				t.Errorf("got  %s (%s)\nwant %s", got, note, tt.want)
			}
			s2, tr2, note2 := Reconcile(s, tr, now.Add(time.Hour))
			if d := cmp.Diff(s, s2, cmp.AllowUnexported(release.Version{})); d != "" || note2 != "" {
				t.Errorf("the second Reconcile changes the state (%q): %s", note2, d)
			}
			if d := cmp.Diff(tr, tr2, cmp.AllowUnexported(release.Version{})); d != "" {
				t.Errorf("the second Reconcile changes the tree: %s", d)
			}
			if !tr.Has(tr.Current) {
				t.Errorf("current is %q, which is not on disk", tr.Current)
			}
			s.Schema = Schema
			if err := s.check(); err != nil {
				t.Errorf("Reconcile makes a state that does not load: %v", err)
			}
		})
	}
}

// Whichever version was deleted, in every pair of state and links: while a version is on
// disk, current points to one, and the state can be loaded again.
func TestReconcileNeverLosesTheLastVersion(t *testing.T) {
	t.Parallel()
	links := []release.Version{no, v1, v2, v3}
	for _, status := range []Status{"", Stable, StagedManual, PendingHealth, RolledBack} {
		for mask := 1; mask < 8; mask++ {
			var have []release.Version
			for i, v := range []release.Version{v3, v2, v1} {
				if mask&(1<<i) != 0 {
					have = append(have, v)
				}
			}
			disk := Tree{Versions: have, AtStart: true}
			for _, cur := range links {
				for _, prev := range links {
					for _, good := range links {
						for _, starts := range []int{0, 1, 3} {
							tr := disk
							// A dangling link counts as missing.
							tr.Current, tr.Previous, tr.LastGood = disk.firstOf(cur), disk.firstOf(prev), disk.firstOf(good)
							s := at(status)
							if status == PendingHealth {
								s.BootAttempts = starts
							}
							s2, t2, _ := Reconcile(s, tr, now)
							s2, t2 = CountStart(s2, t2, "", now)
							if !t2.Has(t2.Current) {
								t.Fatalf("%s, links %s/%s/%s, on disk %v: current is %q", status, cur, prev, good, have, t2.Current)
							}
							s2.Schema = Schema
							if err := s2.check(); err != nil {
								t.Fatalf("%s, links %s/%s/%s, on disk %v: %v", status, cur, prev, good, have, err)
							}
						}
					}
				}
			}
		}
	}
}

func TestReconcileWithNothingInstalled(t *testing.T) {
	t.Parallel()
	for _, status := range []Status{"", Stable, RolledBack} {
		s, tr, note := Reconcile(at(status), Tree{}, now)
		if !tr.Current.IsZero() || note == "" || s.Status != status {
			t.Errorf("%s: got %s, current %q, note %q", status, s.Status, tr.Current, note)
		}
	}
}

func codes(s State) []release.Code {
	var c []release.Code
	for _, e := range s.PendingReports {
		if e.Event != nil {
			c = append(c, e.Event.Code)
		}
	}
	return c
}

func TestTrialCountsThenRollsBack(t *testing.T) {
	t.Parallel()
	s := Start(at(Stable), Command{ID: "c", Version: v2, From: v1}, now)
	s = Begin(s, Trial{ID: "c", CommandID: "c", Target: v2, MaxAttempts: 2}, now)
	tr := tree(v2, v1)
	tr.Previous = v1
	for want := 1; want <= 2; want++ {
		if s, tr = CountStart(s, tr, "", now); s.BootAttempts != want || tr.Current != v2 {
			t.Fatalf("start %d: attempts %d, current %s", want, s.BootAttempts, tr.Current)
		}
	}
	s, tr = CountStart(s, tr, "", now)
	if s.Status != RolledBack || tr.Current != v1 || s.Good != v1 || s.Target != v2 {
		t.Fatalf("after the starts are used up: %+v, current %s", s, tr.Current)
	}
	if d := cmp.Diff([]release.Code{release.Started, release.Staged, release.RolledBack}, codes(s)); d != "" {
		t.Error(d)
	}
	if s2, t2 := CountStart(s, tr, "", now); s2.Status != RolledBack || t2.Current != v1 {
		t.Error("a start after the revert changes something")
	}
}

func TestKeepMovesLastGoodAndTheFloor(t *testing.T) {
	t.Parallel()
	s := Begin(at(Stable), Trial{ID: "c", CommandID: "c", Target: v2, RollbackFloor: v2}, now)
	if s.MaxBootAttempts != DefaultMaxAttempts {
		t.Errorf("max attempts %d", s.MaxBootAttempts)
	}
	if !s.Floor.IsZero() {
		t.Error("the floor rises before the version proved healthy")
	}
	s, tr := Keep(s, tree(v2, v1), v2, "", now)
	if s.Status != Stable || s.Good != v2 || tr.LastGood != v2 || s.Floor != v2 {
		t.Errorf("got %+v, last-good %s", s, tr.LastGood)
	}
	if s2, t2 := Keep(s, tr, v2, "", now); !cmp.Equal(s, s2, cmp.AllowUnexported(release.Version{})) || t2.LastGood != v2 {
		t.Error("Keep is not idempotent")
	}
}

// On a full disk the watchdog only renames previous to current. The missing link shows
// the next Reconcile that the trial was rolled back.
func TestReconcileRecordsARevertByTheLinkAlone(t *testing.T) {
	t.Parallel()
	tr := tree(v1, v1)
	tr.Previous = no
	s, tr, _ := Reconcile(at(PendingHealth), tr, now)
	if s.Status != RolledBack || fmt.Sprint(codes(s)) != "[upgrade_rolled_back]" || tr.Previous.String() != "1.2.0" {
		t.Errorf("got %+v, %+v", s, tr)
	}
}

func TestAnAbandonedTrialIsReportedAsFailed(t *testing.T) {
	t.Parallel()
	s := Start(at(Stable), Command{ID: "c", Version: v2, From: v1}, now)
	s.PendingReports = nil // delivered
	s = Begin(s, Trial{ID: "c", CommandID: "c", Target: v2}, now)
	s = Succeed(s, "c", "staged", now)
	s, tr, _ := Reconcile(s, tree(v1, v1), now)
	if s.Status != Stable || tr.Current != v1 {
		t.Fatalf("got %+v", s)
	}
	if d := cmp.Diff([]release.Code{release.Internal}, codes(s)); d != "" {
		t.Error(d)
	}
	if c, _ := s.Command("c"); c.Success() {
		t.Error("the command counts as a success")
	}
}

func TestCommandsAreBoundedAndInterrupted(t *testing.T) {
	t.Parallel()
	s := at(Stable)
	for i := range MaxCommands + 5 {
		id := fmt.Sprint("c", i)
		s = Accept(s, Command{ID: id, Version: v2})
		if i < MaxCommands+4 {
			s = Succeed(s, id, "current", now)
		}
	}
	if len(s.Commands) != MaxCommands {
		t.Errorf("%d commands are kept, not %d", len(s.Commands), MaxCommands)
	}
	pending := len(s.PendingReports)
	for i := range maxResumed {
		var c Command
		if s, c = Resume(s, 0, now); c.ID != fmt.Sprint("c", MaxCommands+4) || c.Done || c.Resumed != i+1 || len(s.PendingReports) != pending {
			t.Fatalf("after restart %d: %+v", i+1, c)
		}
	}
	if r, c := Resume(s, 1, now); c.ID == "" || c.Resumed != 1 || r.Commands[MaxCommands-1].Have != 1 {
		t.Errorf("with progress: %+v", c)
	}
	s, c := Resume(s, 0, now)
	if last := s.Commands[MaxCommands-1]; c.ID != "" || !last.Done || last.Code != release.Internal || !strings.Contains(last.Error, "interrupted by 6 restarts") {
		t.Errorf("one restart too many: %+v, to be resumed: %+v", last, c)
	}
}

// The command in progress is remembered, however many others are refused meanwhile.
func TestTheCommandInProgressIsNeverForgotten(t *testing.T) {
	t.Parallel()
	s := Start(at(Stable), Command{ID: "mine", Version: v2}, now)
	for i := range 3 * MaxCommands {
		id := fmt.Sprint("refused", i)
		s = Fail(Accept(s, Command{ID: id, Version: v2}), id, release.InProgress, "busy", now)
		if c, ok := s.Command("mine"); !ok || c.Done {
			t.Fatalf("after %d refused commands: %+v", i+1, c)
		}
		if len(s.Commands) > MaxCommands {
			t.Fatalf("%d commands are kept", len(s.Commands))
		}
	}
}

func TestRepeatedEventsHaveOneID(t *testing.T) {
	t.Parallel()
	s := Begin(at(Stable), Trial{ID: "c", CommandID: "c", Target: v2}, now)
	a, _ := Revert(s, tree(v2, v1), "x", now)
	b, _ := Revert(s, tree(v2, v1), "x", now.Add(time.Hour))
	if a.PendingReports[1].ID != b.PendingReports[1].ID || a.PendingReports[0].ID == a.PendingReports[1].ID {
		t.Errorf("ids %s, %s, %s", a.PendingReports[0].ID, a.PendingReports[1].ID, b.PendingReports[1].ID)
	}
}

// A clock that jumps, or starts in 1970, changes no decision.
func TestDecisionsUseNoClock(t *testing.T) {
	t.Parallel()
	run := func(clock func() time.Time) string {
		var steps []string
		s, tr := State{}, tree(v1, v1)
		step := func(change func()) {
			var note string
			change()
			s, tr, note = Reconcile(s, tr, clock())
			steps = append(steps, fmt.Sprint(s.Status, tr.Current, tr.LastGood, s.BootAttempts, len(s.PendingReports), note))
		}
		begin := func() {
			s = Begin(s, Trial{ID: "t", Target: v2, MaxAttempts: 2}, clock())
			tr.Previous, tr.Current = s.Previous, v2
		}
		count := func() { s, tr = CountStart(s, tr, "", clock()) }
		for _, change := range []func(){func() {}, begin, count, count, count, begin, count, func() { s, tr = Keep(s, tr, s.Target, "", clock()) }, count} {
			step(change)
		}
		return strings.Join(steps, "\n")
	}
	want := run(func() time.Time { return now })
	n := 0
	for name, clock := range map[string]func() time.Time{
		"1970":      func() time.Time { return time.Unix(0, 0) },
		"2100":      func() time.Time { return now.AddDate(74, 0, 0) },
		"backwards": func() time.Time { n--; return now.Add(time.Duration(n) * time.Hour) },
		"jumping":   func() time.Time { n++; return now.AddDate((n%3-1)*50, 0, 0) },
	} {
		if got := run(clock); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}
