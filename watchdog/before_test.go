package watchdog_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/watchdog"
)

// starting, idle and skipped are what systemd may say.
var (
	starting = watchdog.Systemd{Starting: func(context.Context) bool { return true }}
	idle     = watchdog.Systemd{Starting: func(context.Context) bool { return false }}
	skipped  = watchdog.Systemd{Skipped: func(context.Context) string { return "a condition is not met" }}
)

// attempts returns the starts that are counted, and the version that starts next.
func attempts(t *testing.T, l state.Layout) (int, string) {
	t.Helper()
	res, err := l.Read()
	if err != nil {
		t.Fatal(err)
	}
	return res.State.BootAttempts, res.Tree.Current.String()
}

// The watchdog in a unit of its own and the one in the service's unit count a start once,
// also if the second never runs.
func TestTwoWatchdogsCountAStartOnce(t *testing.T) {
	t.Parallel()
	l := trial(t, 3)
	for want := 1; want <= 3; want++ {
		if rep, done := watchdog.Before(t.Context(), l, starting); !done || rep.BootAttempts != want {
			t.Fatalf("%+v, %v, want %d starts", rep, done, want)
		}
		if want == 2 {
			continue // the service's unit fails before its first command
		}
		if rep := watchdog.Run(t.Context(), l); rep.BootAttempts != want || rep.Reverted {
			t.Fatalf("%+v, want %d starts", rep, want)
		}
	}
	if rep, _ := watchdog.Before(t.Context(), l, starting); !rep.Reverted {
		t.Fatalf("%+v, want a rollback", rep)
	}
	// The log of the service's unit has the rollback as well, once.
	if rep := watchdog.Run(t.Context(), l); !rep.Reverted || !strings.Contains(rep.Reason, "in 3 starts") {
		t.Errorf("%+v, want the rollback", rep)
	}
	if rep := watchdog.Run(t.Context(), l); rep.Reverted {
		t.Errorf("%+v, want no second rollback", rep)
	}
	if n, current := attempts(t, l); n != 3 || current != "1.0.0" {
		t.Errorf("%d starts, %s runs", n, current)
	}
}

// A watchdog unit that somebody starts by hand, or that systemd starts for a service which
// runs, counts nothing; and in a stable root there is nothing to do.
func TestBeforeCountsStartsOnly(t *testing.T) {
	t.Parallel()
	l := trial(t, 3)
	if rep, done := watchdog.Before(t.Context(), l, idle); done {
		t.Errorf("%+v", rep)
	}
	if n, _ := attempts(t, l); n != 0 {
		t.Errorf("%d starts are counted", n)
	}
	if rep := watchdog.Run(t.Context(), l); rep.BootAttempts != 1 {
		t.Errorf("%+v, want 1 start", rep)
	}
	stable := root(t)
	asked := watchdog.Systemd{Starting: func(context.Context) bool { t.Error("systemd is asked"); return true }}
	if rep, done := watchdog.Before(t.Context(), stable, asked); done {
		t.Errorf("%+v in a stable root", rep)
	}
}

// A start that the watchdog's own unit cannot record is left to the service's unit.
func TestBeforeThatCannotRecord(t *testing.T) {
	t.Parallel()
	l := trial(t, 3)
	if err := os.Mkdir(l.Root()+"/watchdog.json", 0o755); err != nil { // it is not a file
		t.Fatal(err)
	}
	if rep, done := watchdog.Before(t.Context(), l, starting); done {
		t.Errorf("%+v", rep)
	}
	if rep := watchdog.Run(t.Context(), l); rep.BootAttempts != 1 {
		t.Errorf("%+v, want 1 start", rep)
	}
}

// A start that systemd skips is repeated until the starts are used up. One that ran, or
// that systemd repeats by itself, is not.
func TestSkippedStarts(t *testing.T) {
	t.Parallel()
	l := trial(t, 2)
	again := func(s watchdog.Systemd) bool {
		t.Helper()
		again, err := watchdog.After(t.Context(), l, s)
		if err != nil {
			t.Error(err)
		}
		return again
	}
	if again(skipped) {
		t.Error("a start that was not counted is repeated")
	}
	watchdog.Before(t.Context(), l, starting)
	if again(watchdog.Systemd{Skipped: func(context.Context) string { return "" }}) {
		t.Error("a start that was not skipped is repeated")
	}
	watchdog.Run(t.Context(), l)
	if again(skipped) {
		t.Error("a start that reached the service's unit is repeated")
	}
	watchdog.Before(t.Context(), l, starting)
	if !again(skipped) || again(skipped) {
		t.Error("a skipped start is not repeated once")
	}
	rep, _ := watchdog.Before(t.Context(), l, starting)
	if !rep.Reverted || !strings.Contains(rep.Reason, "in 2 starts (start 2: a condition is not met)") {
		t.Errorf("%+v, want a rollback", rep)
	}
	if again(skipped) {
		t.Error("a start of the old version is repeated")
	}
}
