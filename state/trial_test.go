package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	s.Status = Stable
	if err := l.ForgetTrials(s); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(l.path(trialName)); err != nil || len(left) > 0 {
		t.Errorf("%v, %v are left", left, err)
	}
}
