package watchdog_test

import (
	"fmt"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

// cutAt is a disk that makes so many changes, and no more.
type cutAt struct{ left int }

func (d *cutAt) Change(_ fsutil.Op, make func() error) error {
	if d.left == 0 {
		return unix.EIO
	}
	d.left--
	return make()
}

// A power cut at any change that a watchdog makes is no fault of the version, in its first
// start as in each later one, whichever watchdog counts the start. A fault before it may be lost.
func TestAPowerCutInTheWatchdogCountsNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []cutIn{{}, {before: true}, {crashes: true}, {before: true, crashes: true}} {
		for c.start = 1; c.start <= 3; c.start++ {
			for c.changes = 0; !c.run(t); c.changes++ {
			}
			if c.changes < 5 {
				t.Errorf("%+v: only so many changes", c)
			}
		}
	}
}

// cutIn is a power cut in a start.
type cutIn struct {
	before  bool // a watchdog in a unit of its own runs first
	crashes bool // each start before it ended by itself; otherwise the machine went down
	start   int
	changes int // that the watchdogs make before the cut
}

// run reports whether the watchdogs made no more changes.
func (c cutIn) run(t *testing.T) bool {
	t.Helper()
	l := recorded(t, 5)
	start := func(boot string, crashed int, l state.Layout) {
		s := restarts(crashed)
		s.Boot, s.Starting = boot, starting.Starting
		if c.before {
			watchdog.Before(t.Context(), l, s)
		}
		watchdog.RunAfter(t.Context(), l, s)
	}
	least, most := 1, 1
	disk := &cutAt{c.changes}
	for n := range c.start {
		boot, crashed, l := fmt.Sprintf("boot %d", n), 0, l
		if c.crashes {
			boot, crashed, least, most = "boot", n, max(1, n), n+1
		}
		if n == c.start-1 {
			l = l.On(fsutil.Disk{Seam: disk})
		}
		start(boot, crashed, l)
	}
	if err := l.ClearCounted(); err != nil { // it is of another boot
		t.Fatal(err)
	}
	start("the boot after it", 0, l)
	if n, current := attempts(t, l); n < least || n > most || current != "1.1.0" {
		t.Errorf("%+v: %d starts count, want %d to %d; %s runs", c, n, least, most, current)
	}
	return disk.left > 0
}
