package state

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// A command is withdrawn until its swap, and not afterwards.
func TestWithdraw(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	v1, v2 := release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
	stable := State{Status: Stable, Good: v1}
	staging := Start(stable, Command{ID: "c", Version: v2, From: v1, Channel: "stable"}, now)
	staging = Waiting(staging, "c", &Wait{Reason: "the release host", Since: now})
	shelved := Succeed(Shelve(staging, Trial{ID: "c", Target: v2, CommandID: "c"}, now), "c", stagedManual, now)
	stick := Shelve(stable, Trial{ID: "offline-1.1.0-1", Target: v2}, now)
	onTrial := Succeed(Begin(staging, Trial{ID: "c", Target: v2, CommandID: "c"}, now), "c", "staged", now)
	failed := Fail(staging, "c", release.SignatureInvalid, "forged", now)
	withdrawn, err := Withdraw(staging, "c", "the manager withdrew", now)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		s    State
		id   string
		fail string // "": withdrawn
		ack  bool
	}{
		"in progress":                   {staging, "c", "", true},
		"whichever is in progress":      {staging, "", "", true},
		"waits for an operator":         {shelved, "c", "", false},
		"whichever waits":               {shelved, "", "", false},
		"from a stick":                  {stick, "", "", false},
		"on trial":                      {onTrial, "c", "roll back", false},
		"whichever, on trial":           {onTrial, "", "no upgrade is in progress", false},
		"failed":                        {failed, "c", "has failed already (upgrade_signature_invalid)", false},
		"another":                       {staging, "d", "knows no command d", false},
		"nothing":                       {stable, "", "no upgrade is in progress, and no version waits", false},
		"another waits for an operator": {shelved, "d", "knows no command d", false},
	} {
		got, err := Withdraw(tt.s, tt.id, "the manager withdrew", now)
		if tt.fail != "" {
			if !errors.Is(err, ErrNotWithdrawn) || !strings.Contains(err.Error(), tt.fail) || len(got.PendingReports) != len(tt.s.PendingReports) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || got.Status != Stable || got.InProgress().ID != "" || !got.Target.IsZero() || got.check() != nil {
			t.Errorf("%s: %v, %+v", name, err, got)
			continue
		}
		added := got.PendingReports[len(tt.s.PendingReports):]
		acked := slices.ContainsFunc(added, func(e Entry) bool { return e.Ack != nil && e.Ack.Code == release.Withdrawn && !e.Ack.Success() })
		told := slices.ContainsFunc(added, func(e Entry) bool {
			return e.Event != nil && e.Event.Code == release.Withdrawn && e.Event.To == v2 && e.Event.From == v1 && strings.Contains(e.Event.Message, "the manager withdrew the upgrade to 1.1.0; what was ")
		})
		if acked != tt.ack || !told || len(added) > 2 {
			t.Errorf("%s: %+v", name, added)
		}
		if c, ok := got.Command("c"); ok && (c.Code != release.Withdrawn || c.Wait != nil || c.Status != "") {
			t.Errorf("%s: %+v", name, c)
		}
		again, err := Withdraw(got, "c", "the manager withdrew", now)
		if _, ok := got.Command("c"); ok && (err != nil || len(again.PendingReports) != len(got.PendingReports)) {
			t.Errorf("%s, again: %v", name, err)
		}
	}
	if r, c := Resume(withdrawn, 0, now); c.ID != "" || len(r.PendingReports) != len(withdrawn.PendingReports) {
		t.Errorf("it is resumed: %+v", c)
	}
}

// A command that only waits for its download is resumed after any number of restarts; one that
// ends the process each time is not.
func TestACommandThatWaitsIsResumedAgain(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := Accept(State{Status: Stable}, Command{ID: "c", Version: release.MustVersion("1.1.0")})
	for i := range 50 {
		var c Command
		s = Waiting(s, "c", &Wait{Reason: "the release host", CountedSecs: 7, Have: 9})
		if s, c = Resume(s, 0, now); c.ID != "c" || c.Wait == nil || c.Wait.CountedSecs != 7 || c.Resumed != 1 {
			t.Fatalf("restart %d: %+v", i, c)
		}
	}
	s = Waiting(s, "c", nil)
	for range maxResumed - 1 {
		s, _ = Resume(s, 0, now)
	}
	if s, c := Resume(s, 0, now); c.ID != "" || s.Commands[0].Code != release.Internal {
		t.Errorf("%+v", s.Commands)
	}
}

// A wait that a start before the last one recorded frees no command from the bound of restarts:
// the command may end each process before it waits.
func TestAWaitOfAnEarlierStartFreesNoCommand(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := Accept(State{Status: Stable, Good: release.MustVersion("1.0.0")}, Command{ID: "a", Version: release.MustVersion("1.1.0"), Have: 100, Wait: &Wait{Reason: "x", Since: now, Have: 100}})
	c := Command{ID: "a"}
	for n := 0; c.ID != ""; n++ {
		if s, c = Resume(s, 100, now); n > maxResumed {
			t.Fatalf("resumed %d times without progress", n)
		}
		if c.ID != "" && (c.Wait == nil || c.Wait.Have != 100 || !c.Wait.Since.Equal(now)) {
			t.Errorf("%+v", c.Wait)
		}
	}
	if c := s.Commands[0]; c.Code != release.Internal {
		t.Errorf("%+v", c)
	}
}

// Nothing is reported of a command after its last report, also once it is forgotten.
func TestADownloadIsNotReportedAfterTheWithdrawal(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s, err := Withdraw(Accept(State{Status: Stable}, Command{ID: "a", Version: release.MustVersion("1.1.0")}), "", "an operator withdrew", now)
	if err != nil {
		t.Fatal(err)
	}
	forgotten := s
	forgotten.Commands = nil
	for _, s := range []State{s, forgotten} {
		if got := Downloaded(s, "a", now); len(got.PendingReports) != len(s.PendingReports) {
			t.Errorf("%+v", got.PendingReports)
		}
	}
}

// Earlier agents read a state.json with a wait, and what it waits for is bounded.
func TestAWaitInStateJSON(t *testing.T) {
	t.Parallel()
	s := Accept(State{Status: Stable, Good: release.MustVersion("1.0.0")}, Command{ID: "c", Version: release.MustVersion("1.1.0")})
	s = Waiting(s, "c", &Wait{Reason: strings.Repeat("x", 9000) + "\n", Since: time.Now().UTC(), CountedSecs: 3, Have: 4})
	b, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if w := got.Commands[0].Wait; w == nil || len(w.Reason) > maxText || w.CountedSecs != 3 || w.Have != 4 || w.Since.IsZero() {
		t.Errorf("%+v", w)
	}
}
