package watchdog

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
)

const (
	minPause = 200 * time.Millisecond // between two starts, after the first quick end
	maxPause = 10 * time.Second
	// unknownPause is at most half of the shortest boot_health_window_secs.
	unknownPause = 5 * time.Second
)

// Pace is what systemd knows of the restarts of the service.
type Pace struct {
	Restarts int           // that systemd made by itself since an operator, or the boot, started it
	Wait     time.Duration // how long systemd itself waits between two starts
	Limit    time.Duration // of the command that asks; 0: none, or unknown
}

// Pause returns how long this start waits, so that a service that ends again and again is
// not started ten times a second, and how many starts in a row ended quickly. The time
// between two starts doubles from 200 ms up to 10 s, of which systemd waits a part itself.
//
// Nothing waits on trial or in a start that rolls back: the starts of a trial are counted,
// and the next step must come soon. The first restart after at least a minute does not wait
// either, nor does a start by an operator. Only a start after a quick end asks for the pace.
//
// Pause takes no lock. It is called once the watchdog has done its work, and the caller
// waits.
func (rep Report) Pause(ctx context.Context, l state.Layout, pace func(context.Context) (Pace, error)) (wait time.Duration, row int) {
	if row = l.CountQuick(rep.Reverted || rep.Status == state.PendingHealth); row <= 0 {
		return 0, 0
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	p, err := pace(ctx)
	if err != nil {
		return 0, row
	}
	if p.Restarts == 0 {
		l.ClearQuick()
	}
	if row = min(row, p.Restarts); row == 0 {
		return 0, 0
	}
	wait = maxPause
	if row <= 6 {
		wait = min(minPause<<(row-1), maxPause)
	}
	limit := unknownPause
	if p.Limit > 0 {
		limit = p.Limit / 2 // the rest is for the watchdog
	}
	return max(min(wait-p.Wait, limit), 0), row
}
