package watchdog_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

// starting and idle are what systemd may say.
var (
	starting = watchdog.Systemd{Starting: func(context.Context) bool { return true }}
	idle     = watchdog.Systemd{Starting: func(context.Context) bool { return false }}
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

// A start that the watchdog's own unit cannot record is left to the service's unit. Only if
// the version on trial cannot reach that one, Before counts it.
func TestBeforeThatCannotRecord(t *testing.T) {
	t.Parallel()
	l := trial(t, 3).On(fsutil.Disk{Seam: noRecord{}})
	if rep, done := watchdog.Before(t.Context(), l, starting); !done || len(rep.Errs) != 1 || rep.BootAttempts != 0 || rep.Current != v2 {
		t.Errorf("%+v, %v, want an error, and no start", rep, done)
	}
	if rep := watchdog.Run(t.Context(), l); rep.BootAttempts != 1 {
		t.Errorf("%+v, want 1 start", rep)
	}
	broken := starting
	broken.OwnFault = atFault
	for want := 2; want <= 3; want++ {
		if rep, done := watchdog.Before(t.Context(), l, broken); !done || rep.BootAttempts != want {
			t.Errorf("%+v, %v, want %d starts", rep, done, want)
		}
	}
	if rep, _ := watchdog.Before(t.Context(), l, broken); !rep.Reverted {
		t.Errorf("%+v, want a rollback", rep)
	}
}

// noRecord is a disk on which watchdog.json cannot be written.
type noRecord struct{}

func (noRecord) Change(op fsutil.Op, make func() error) error {
	if filepath.Base(op.Path) == "watchdog.json" {
		return unix.ENOSPC
	}
	return make()
}

// A record of starts that is no file, or that another user owns, is replaced.
func TestTheRecordOfStartsIsReplaced(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"directory": func(path string) error { return os.MkdirAll(path+"/x", 0o755) },
		"link":      func(path string) error { return os.Symlink("/etc/hostname", path) },
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		l := trial(t, 3)
		if err := damage(l.Root() + "/watchdog.json"); err != nil {
			t.Fatal(err)
		}
		if rep, done := watchdog.Before(t.Context(), l, starting); !done || len(rep.Errs) > 0 || rep.BootAttempts != 1 {
			t.Errorf("%s: %+v, %v, want 1 start", name, rep, done)
		}
		if rep := watchdog.Run(t.Context(), l); rep.BootAttempts != 1 {
			t.Errorf("%s: %+v, want 1 start", name, rep)
		}
	}
}

// down is what systemd says of a service whose start was skipped.
func down(_ context.Context) (bool, string, string) { return true, "a condition is not met", "earlier" }

func atFault(context.Context) string { return "1.1.0 lacks current/share" }

// A start that systemd did not make for a fault of the version is counted once, and repeated
// until the starts are used up, also if no watchdog ran before it.
func TestSkippedStartsOfABadVersion(t *testing.T) {
	t.Parallel()
	for _, counts := range []bool{true, false} {
		l := trial(t, 2)
		bad := watchdog.Systemd{Skipped: down, OwnFault: atFault}
		for want := 1; want <= 2; want++ {
			if counts {
				watchdog.Before(t.Context(), l, starting)
			}
			again, why, err := watchdog.After(t.Context(), l, bad)
			if n, _ := attempts(t, l); !again || n != want || !strings.Contains(why, "lacks current/share") || err != nil {
				t.Errorf("counted before: %v: %v, %q, %v, %d starts, want %d", counts, again, why, err, n, want)
			}
		}
		if counts {
			watchdog.Before(t.Context(), l, starting)
		} else if again, _, _ := watchdog.After(t.Context(), l, bad); !again {
			t.Error("the old version is not started")
		}
		res, err := l.Read()
		if err != nil || res.State.Status != state.RolledBack || !strings.Contains(res.State.Reason, "in 2 starts (start 2: a condition is not met: 1.1.0 lacks current/share)") {
			t.Errorf("%+v, %v, want a rollback", res.State, err)
		}
		if again, _, _ := watchdog.After(t.Context(), l, bad); again {
			t.Error("a start of the old version is repeated")
		}
	}
}

// A start that systemd did not make for another reason is not counted, and not repeated.
func TestSkippedStartsOfAGoodVersion(t *testing.T) {
	t.Parallel()
	l := trial(t, 2)
	good := watchdog.Systemd{Skipped: down, OwnFault: func(context.Context) string { return "" }}
	for range 5 {
		watchdog.Before(t.Context(), l, starting)
		again, why, err := watchdog.After(t.Context(), l, good)
		if n, _ := attempts(t, l); again || n != 0 || why != "a condition is not met" || err != nil {
			t.Fatalf("%v, %q, %v, %d starts", again, why, err, n)
		}
	}
	// One that ran, or that systemd repeats by itself, stays counted.
	watchdog.Before(t.Context(), l, starting)
	if again, _, _ := watchdog.After(t.Context(), l, watchdog.Systemd{Skipped: func(context.Context) (bool, string, string) { return false, "", "" }}); again {
		t.Error("a start that was not skipped is repeated")
	}
	watchdog.Run(t.Context(), l)
	if again, _, _ := watchdog.After(t.Context(), l, good); again {
		t.Error("a start that reached the service's unit is repeated")
	}
	if n, _ := attempts(t, l); n != 1 {
		t.Errorf("%d starts are counted, want 1", n)
	}
}
