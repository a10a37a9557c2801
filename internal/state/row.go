package state

import (
	"bytes"
	"encoding/json"
	"math"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"golang.org/x/sys/unix"
)

// maxQuickRun is how long a start lasts that ended quickly. The longest wait before a start
// is part of it.
const maxQuickRun = time.Minute

// quick is the file of CountQuick.
type quick struct {
	start
	AtMilli int64 `json:"at_ms"` // when it was written, since the machine was booted
	Row     int   `json:"row"`
}

// CountQuick counts, for a watchdog, how many starts in a row of this boot ended within a
// minute, the one before this included. It returns -1 if it has already counted this start, and a
// large number if it cannot write, as on a disk that became read-only: then only systemd counts
// the starts. With reset the row begins again with this start. Like the file
// of RecordStart the file is overwritten in place, and not synced, as no other boot reads it.
func (l Layout) CountQuick(reset bool) int {
	var last quick
	now, at := thisStart(), sinceBoot()
	b, err := fsutil.ReadFile(l.path(rowName), startSize)
	if err != nil || json.Unmarshal(b, &last) != nil || last.BootID != now.BootID {
		last = quick{AtMilli: -maxQuickRun.Milliseconds()}
	}
	if now.InvocationID != "" && last.start == now {
		return -1
	}
	row := last.Row + 1
	if reset || at.Milliseconds()-last.AtMilli >= maxQuickRun.Milliseconds() {
		row = 0
	}
	if l.writeQuick(quick{now, at.Milliseconds(), row}) != nil && !reset {
		return math.MaxInt
	}
	return row
}

// ClearQuick begins the row again: somebody else ended the last start.
func (l Layout) ClearQuick() { l.writeQuick(quick{thisStart(), sinceBoot().Milliseconds(), 0}) }

func (l Layout) writeQuick(q quick) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return l.overwrite(l.path(rowName), append(b, bytes.Repeat([]byte{' '}, max(0, startSize-len(b)))...))
}

// sinceBoot returns the time since the machine was booted. No operator and no server can set it.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
