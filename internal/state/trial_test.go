package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// A record of a trial counts for that trial only, and a damaged one for none.
func TestRecordsOfATrial(t *testing.T) {
	t.Parallel()
	l, err := At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := State{Status: PendingHealth, TrialID: "../x/y"} // an id of a manager
	if _, ok := l.ReadSwap(s); ok {
		t.Error("there is no record yet")
	}
	if err := l.RecordSwap(SwapRecord{TrialID: s.TrialID, From: v1, ManagerKey: "k", Probe: true}); err != nil {
		t.Fatal(err)
	}
	if r, ok := l.ReadSwap(s); !ok || r.From != v1 || r.ManagerKey != "k" || !r.Probe {
		t.Errorf("%+v, %v", r, ok)
	}
	for _, other := range []State{{Status: PendingHealth, TrialID: "another"}, {Status: RolledBack, TrialID: s.TrialID}} {
		if r, ok := l.ReadSwap(other); ok {
			t.Errorf("%+v has the record %+v", other, r)
		}
	}
	r := StartsRecord{TrialID: s.TrialID, Number: 3, Excused: 2, BootID: "b", Restarts: 4}
	for range 100 {
		r = r.Ended(StartEnd{How: strings.Repeat("long ", 10_000), Counted: true})
	}
	if err := l.RecordStarts(r); err != nil || len(r.Ends) != maxEnds {
		t.Fatalf("%v, %d ends", err, len(r.Ends))
	}
	if got, ok := l.ReadStarts(s); !ok || got.Number != 3 || got.Excused != 2 || len(got.Ends) != maxEnds {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, text := range []string{"", "{", `{"trial_id":"another","starts":1}`, `{"trial_id":"../x/y","starts":0}`, `{"trial_id":"../x/y","starts":1,"excused":-1}`, "[]"} {
		if err := os.WriteFile(filepath.Join(l.trialDir(s.TrialID), startsName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := l.ReadStarts(s); ok {
			t.Errorf("%q is the record %+v", text, got)
		}
	}
	if err := l.RecordJudge(JudgeRecord{TrialID: s.TrialID, Start: 3, Ready: true}); err != nil {
		t.Fatal(err)
	}
	if got := l.ReadJudge(s); !got.Ready || got.Start != 3 {
		t.Errorf("%+v", got)
	}
	if err := l.ForgetTrials(s); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.ReadSwap(s); !ok {
		t.Error("the record of the present trial was removed")
	}
	s.Status = RolledBack
	if err := os.WriteFile(l.TrialCredentials(s.TrialID), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.ForgetTrials(s); err != nil {
		t.Fatal(err)
	}
	if f := l.Findings(s); f == nil {
		t.Error("what the trial found before its rollback was removed")
	}
	if _, err := os.Stat(l.TrialCredentials(s.TrialID)); err != nil {
		t.Errorf("the copy of the credentials is removed before it is compared: %v", err)
	}
	s.Status = Stable
	if err := l.ForgetTrials(s); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(l.path(trialName)); err != nil || len(left) > 0 {
		t.Errorf("%v, %v are left", left, err)
	}
}

// The report of a rollback says what the trial found, whatever wrote the records.
func TestTheReportOfARollbackHasTheFindings(t *testing.T) {
	t.Parallel()
	l := root(t)
	s := do(t, l, begin).State
	long := strings.Repeat("line\n\x00", 4000)
	starts := StartsRecord{TrialID: s.TrialID, Number: 1}
	for i := range maxEnds {
		starts = starts.Ended(StartEnd{How: fmt.Sprintf("%d: %s", i, long), Counted: i%2 == 0})
	}
	for _, err := range []error{
		l.RecordSwap(SwapRecord{TrialID: s.TrialID, From: v1, Baseline: "held"}), l.RecordStarts(starts),
		l.RecordJudge(JudgeRecord{TrialID: s.TrialID, Start: 1, Rounds: 6, Link: long, Probe: "reached held"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	do(t, l, func(s State, t Tree, now time.Time) (State, Tree, error) {
		s, t = Revert(s, t, "why", now)
		return s, t, nil
	})
	entries, _, err := l.Outbox().List()
	if err != nil {
		t.Fatal(err)
	}
	got := entries[len(entries)-1].Event.Trial
	if got == nil || got.Contradictions != 6 || got.Probe != "reached held" || got.ProbeBefore != "held" || len(got.Link) > maxFound || !strings.HasPrefix(got.Link, "line") {
		t.Fatalf("%+v", got)
	}
	if n := len(got.NotCounted); n != maxNotCounted || !strings.HasPrefix(got.NotCounted[n-1], "39: line") || len(got.NotCounted[n-1]) > maxCause {
		t.Errorf("%d starts: %q", n, got.NotCounted)
	}
	if f := l.Findings(s); f == nil || f.Contradictions != 6 {
		t.Errorf("they are gone after the rollback: %+v", f)
	}
	if f := l.Findings(State{Status: RolledBack, TrialID: "another"}); f != nil {
		t.Errorf("another trial has %+v", f)
	}
}

// The largest state that a node can have to write is below its bound.
func TestTheLargestStateIsBelowItsBound(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(`"`, 4000) // two bytes each in JSON
	v := release.MustVersion("1.0.0-" + strings.Repeat("a", release.MaxVersionLen-6))
	var many []string
	for range 100 {
		many = append(many, long)
	}
	s := State{
		Schema: Schema, Status: RolledBack, Target: v, Good: v, Previous: v, Replaces: v, Floor: v, PendingFloor: v,
		CommandID: long, Channel: long, TrialID: long, Reason: long, FailedStarts: many,
	}
	for range 30 {
		s.PendingReports = append(s.PendingReports, Entry{ID: strings.Repeat("a", 128), Time: time.Now(), Event: &Event{
			Code: release.RolledBack, Message: long, Reason: long, CommandID: long, From: v, To: v, FailedStarts: many, Journal: many,
			Trial: &Findings{Contradictions: maxRounds, Link: long, Probe: long, ProbeBefore: long, NotCounted: many},
		}})
		s.Commands = append(s.Commands, Command{ID: long, Channel: long, Error: long, Status: long, Code: release.Code(long), Done: true, From: v, Version: v})
	}
	b, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if last := got.PendingReports[len(got.PendingReports)-1].Event; last.Trial == nil || last.Trial.Link == "" {
		t.Error("the newest report has lost what its trial found")
	}
}
