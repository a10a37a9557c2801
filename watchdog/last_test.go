package watchdog_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
)

// recorded returns a root with 1.1.0 on trial for max starts, whose service is its own agent.
func recorded(t *testing.T, max int) state.Layout {
	t.Helper()
	l := trial(t, max)
	if err := l.RecordSwap(state.SwapRecord{TrialID: "c", From: v1}); err != nil {
		t.Fatal(err)
	}
	return l
}

// restarts is a systemd that has restarted the service n times by itself.
func restarts(n int) watchdog.Systemd {
	return watchdog.Systemd{Restarts: func(context.Context) (int, error) { return n, nil }}
}

// judge records what the agent on trial found out about the present start.
func judge(t *testing.T, l state.Layout, r state.JudgeRecord) {
	t.Helper()
	s := read(t, l)
	starts, ok := l.ReadStarts(s)
	if !ok {
		t.Fatal("the watchdog recorded no start")
	}
	r.TrialID, r.Start = s.TrialID, starts.Number
	if err := l.RecordJudge(r); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, l state.Layout) state.State {
	t.Helper()
	res, err := l.Read()
	if err != nil {
		t.Fatal(err)
	}
	return res.State
}

// A start that systemd restarted by itself counts. One that an operator ended does not: at
// most nine in a row before the version was ready, and any number afterwards.
func TestWhichStartsCount(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ends  string // of each start: f by itself, o operator, O operator after READY=1, c ten minutes and by itself, m the machine, u unknown
		want  int    // starts that count, the present one included
		after string
	}{
		"crashes":                        {"ff", 3, ""},
		"three crashes":                  {"fff", 3, "rolled back"},
		"an operator":                    {"ooooo", 1, ""},
		"nine in a row":                  {"ooooooooo", 1, ""},
		"the tenth counts":               {"oooooooooo", 2, ""},
		"after READY=1":                  {"OOOOOOOOOOOOOOO", 1, ""},
		"power cuts":                     {"mmmmm", 1, ""},
		"power cuts and an operator":     {"momomomomo", 2, ""},
		"between crashes":                {"fofo", 3, ""},
		"ten minutes clear the counts":   {"ffcff", 3, "rolled back"},
		"ten minutes clear, then two":    {"ffcf", 3, ""},
		"nobody answers":                 {"uu", 3, ""},
		"twelve ends of the machine and": {"ooooooooooo" + "o", 3, "rolled back"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := recorded(t, 3)
			n := 1 // the swap's own restart
			rep := watchdog.RunAfter(t.Context(), l, restarts(n))
			for _, end := range tt.ends {
				sd := watchdog.Systemd{Restarts: func(context.Context) (int, error) { return n, nil }}
				switch end {
				case 'f':
					n++
				case 'o':
					n = 0
				case 'O':
					judge(t, l, state.JudgeRecord{Ready: true})
					n = 0
				case 'c':
					judge(t, l, state.JudgeRecord{Ready: true, Calm: true})
					n++
				case 'm': // also if systemd counts restarts of the new boot
					s := read(t, l)
					starts, _ := l.ReadStarts(s)
					starts.BootID = "another"
					if err := l.RecordStarts(starts); err != nil {
						t.Fatal(err)
					}
					n = 2
				case 'u':
					sd.Restarts = func(context.Context) (int, error) { return 0, errors.New("no answer") }
				}
				rep = watchdog.RunAfter(t.Context(), l, sd)
				if rep.Reverted {
					break
				}
			}
			if rep.BootAttempts != tt.want || rep.Reverted != (tt.after == "rolled back") || len(rep.Errs)+len(rep.Notes) > 0 {
				t.Errorf("%s: %+v, want %d starts, %s", tt.ends, rep, tt.want, tt.after)
			}
		})
	}
}

// Before the service's unit runs, systemd still has the number of restarts from before an
// operator's restart. Only a number that has changed means that systemd restarted it.
func TestWhichStartsCountBeforeTheUnit(t *testing.T) {
	t.Parallel()
	l := recorded(t, 3)
	before := func(n int) watchdog.Report {
		s := restarts(n)
		s.Starting = starting.Starting
		rep, _ := watchdog.Before(t.Context(), l, s)
		return rep
	}
	for i, tt := range []struct{ before, within, want int }{
		{4, 4, 1}, // the swap's own restart
		{4, 0, 1}, // an operator
		{0, 0, 1}, // another one
		{1, 1, 2}, // a crash
		{1, 0, 2}, // an operator
		{1, 1, 3}, // a crash: the number is that of the crash before
	} {
		before(tt.before)
		if rep := watchdog.RunAfter(t.Context(), l, restarts(tt.within)); rep.BootAttempts != tt.want || rep.Reverted {
			t.Errorf("%d: %+v, want %d starts", i, rep, tt.want)
		}
	}
	if rep := before(2); !rep.Reverted {
		t.Errorf("%+v, want a rollback", rep)
	}
	s := read(t, l)
	if s.BootAttempts != 3 || !strings.Contains(s.Reason, "in 3 starts") {
		t.Errorf("%+v", s)
	}
}

// The restart into the version on trial is a job, which clears the number of restarts. If the
// start fails before a command of the service's unit corrects the record, the number after it
// may be the one from before the job; the start counts all the same.
func TestAStartThatFailsBeforeTheUnitCounts(t *testing.T) {
	t.Parallel()
	for n := range 3 {
		l := recorded(t, 3)
		for want, restarted := range []int{n, 1, 2} {
			s := restarts(restarted)
			s.Starting = starting.Starting
			if rep, _ := watchdog.Before(t.Context(), l, s); rep.BootAttempts != want+1 || rep.Reverted {
				t.Errorf("%d before the restart: %+v, want %d starts", n, rep, want+1)
			}
		}
	}
}

// Without the record of the trial, as an earlier version leaves it, each start counts. So
// it is with a record that cannot be read, or is that of another trial.
func TestWithoutARecordEachStartCounts(t *testing.T) {
	t.Parallel()
	other := trial(t, 3)
	if err := other.RecordSwap(state.SwapRecord{TrialID: "another", From: v1}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []state.Layout{trial(t, 3), other} {
		for want := 1; want <= 3; want++ {
			if rep := watchdog.RunAfter(t.Context(), l, restarts(0)); rep.BootAttempts != want {
				t.Errorf("%+v, want %d", rep, want)
			}
		}
	}
}

// A verdict that the agent noted before the machine went down counts.
func TestANotedVerdictCounts(t *testing.T) {
	t.Parallel()
	l := recorded(t, 3)
	watchdog.RunAfter(t.Context(), l, restarts(0))
	if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.NoteFailure(s, "its check failed"), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	rep := watchdog.RunAfter(t.Context(), l, restarts(0))
	if rep.BootAttempts != 2 || rep.LastEnd != "its check failed" || !rep.LastCounts {
		t.Errorf("%+v, want 2 starts", rep)
	}
	if starts, ok := l.ReadStarts(read(t, l)); !ok || starts.Number != 2 || len(starts.Ends) != 1 || !starts.Ends[0].Counted {
		t.Errorf("%+v, %v", starts, ok)
	}
}

// A start that systemd does not make for a reason of its own changes nothing that was
// counted.
func TestAStartThatIsNotMadeCountsNothing(t *testing.T) {
	t.Parallel()
	l := recorded(t, 3)
	watchdog.RunAfter(t.Context(), l, restarts(0))
	watchdog.RunAfter(t.Context(), l, restarts(1)) // one crash
	s := restarts(1)
	s.Starting, s.Skipped = starting.Starting, down
	for range 12 {
		watchdog.Before(t.Context(), l, s)
		if again, why, err := watchdog.After(t.Context(), l, s); again || why == "" || err != nil {
			t.Fatalf("%v, %q, %v", again, why, err)
		}
	}
	if rep := watchdog.RunAfter(t.Context(), l, restarts(0)); rep.BootAttempts != 2 || rep.Reverted {
		t.Errorf("%+v, want 2 starts", rep)
	}
}

// A first start that systemd does not make leaves nothing: the version was never started, so that
// in attached mode the swap can be taken back.
func TestAFirstStartThatIsNotMadeIsNone(t *testing.T) {
	t.Parallel()
	l := recorded(t, 3)
	s := restarts(0)
	s.Starting, s.Skipped = starting.Starting, down
	for range 12 {
		watchdog.Before(t.Context(), l, s)
		if again, why, err := watchdog.After(t.Context(), l, s); again || why == "" || err != nil {
			t.Fatalf("%v, %q, %v", again, why, err)
		}
		if starts, known := l.ReadStarts(read(t, l)); known || read(t, l).BootAttempts != 0 {
			t.Errorf("%+v; %d starts", starts, read(t, l).BootAttempts)
		}
	}
	if rep := watchdog.RunAfter(t.Context(), l, restarts(0)); rep.BootAttempts != 1 || rep.Reverted {
		t.Errorf("%+v, want the first start", rep)
	}
}

// An operator's acceptance waives what the link says, and no end of the process.
func TestAcceptedRoundsDoNotCount(t *testing.T) {
	t.Parallel()
	for _, accepted := range []bool{false, true} {
		l := recorded(t, 3)
		watchdog.RunAfter(t.Context(), l, restarts(1))
		judge(t, l, state.JudgeRecord{Ready: true, Passed: true, Rounds: 6})
		if accepted {
			if err := l.RecordAccept(state.AcceptRecord{TrialID: "c", At: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		if rep := watchdog.RunAfter(t.Context(), l, restarts(0)); rep.Reverted == accepted { // an operator's restart
			t.Errorf("accepted %t: %+v", accepted, rep)
		}
	}
}
