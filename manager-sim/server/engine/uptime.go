package engine

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// Boot is the boot of the machine: its id, and how long ago it was, also while the machine was
// suspended. Nobody sets that clock.
type Boot struct {
	ID    string // "": not known
	Since time.Duration
}

// thisBoot reads the boot of this machine. If it cannot be read, no jump is noticed.
func thisBoot() Boot {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Boot{}
	}
	up, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return Boot{}
	}
	first, _, _ := strings.Cut(string(up), " ")
	secs, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return Boot{}
	}
	return Boot{strings.TrimSpace(string(id)), time.Duration(secs * float64(time.Second))}
}

// built is when this program was built, as far as it is known.
var built = sync.OnceValue(func() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, _ := time.Parse(time.RFC3339, s.Value) // or zero
			return t
		}
	}
	return time.Time{}
})

// maxJump is by how much a clock may be corrected before that counts as a jump.
const maxJump = time.Minute

// Jump is a jump of the wall clock.
type Jump struct {
	By time.Duration
	At time.Time // by the clock after it
	// Start is whether the clock jumped while no manager ran.
	Start bool
}

// Reason is why a rollout pauses.
func (j Jump) Reason() string {
	where := ""
	if j.Start {
		where = " while no manager ran"
	}
	return fmt.Sprintf("the clock of the manager jumped by %+.0f s%s, to %s; check it, and resume", j.By.Seconds(), where, j.At.UTC().Format(timeFormat))
}

// jumped returns the jump between two beats, or nil. A clock that was not set before, at a
// date before the program was built or before the last beat of the manager before, does not
// jump: it is set.
func jumped(from, to store.Beat, unset time.Time) *Jump {
	if from.BootID == "" || from.BootID != to.BootID || from.At.Before(unset) || from.At.Before(built()) {
		return nil
	}
	by := to.At.Sub(from.At) - (to.Boot - from.Boot)
	if by.Abs() <= maxJump {
		return nil
	}
	return &Jump{By: by, At: to.At}
}

// Jump returns the last jump of the wall clock that was not forgotten, or nil.
func (c *Clock) Jump() *Jump {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jump
}

// seenBefore reports whether a manager before this one saw a node in the same boot of the
// machine.
func (c *Clock) seenBefore() bool { return c != nil && c.seen }

// ForgetJump forgets a jump, after every rollout was paused for it.
func (c *Clock) ForgetJump(j *Jump) {
	if j == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jump == j {
		c.jump = nil
	}
}

// Uptime returns how long managers have run in all until now. Of the time since the last beat
// only as much counts as may pass between two beats: while beats are not possible, no time
// limit runs.
func (c *Clock) Uptime(now time.Time) rollout.Uptime {
	if c == nil {
		return rollout.Uptime{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return rollout.Uptime{At: now, Sum: c.uptime(now)}
}

// uptime is Uptime with mu held. It uses the monotonic clock of now.
func (c *Clock) uptime(now time.Time) time.Duration {
	sum := max(c.last.Uptime, time.Millisecond) // 0 is "not known"
	if c.mono.IsZero() {
		return sum
	}
	return sum + min(max(0, now.Sub(c.mono)), maxBeatGap)
}

// record stores a beat. If it fails, the time since the last beat counts as an outage as
// soon as that is longer than maxBeatGap.
func (c *Clock) record(ctx context.Context, now time.Time, gap time.Duration) error {
	boot := c.boot()
	c.mu.Lock()
	mono, last, start := now, c.last, c.mono.IsZero()
	next := store.Beat{At: now.Round(0), Uptime: c.uptime(now), BootID: boot.ID, Boot: boot.Since}
	c.mu.Unlock()
	if err := c.store.RecordBeat(ctx, now, gap, next); err != nil {
		return err
	}
	now = now.Round(0) // as it is stored: without the monotonic clock, which stops in a suspended machine
	c.mu.Lock()
	outages, away := c.outages, now.Sub(c.beat)
	back, known := away < 0 || c.beat.IsZero(), 0 <= away && away <= gap
	c.mu.Unlock()
	if !known {
		list, err := c.store.Outages(ctx)
		if err != nil {
			return err
		}
		outages = make(rollout.Outages, len(list))
		for i, o := range list {
			outages[i] = rollout.Outage{Began: o.Began, Ended: o.Ended}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beat, c.outages, c.last, c.mono = now, outages, next, mono
	if back {
		c.corrected = now
	}
	unset := c.before
	if start {
		unset = time.Time{} // last is of the manager before
	}
	if j := jumped(last, next, unset); j != nil {
		j.Start = start
		c.jump = j
	}
	return nil
}
