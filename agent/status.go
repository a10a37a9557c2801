package agent

import (
	"context"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// loopGrace is how much longer than its own time limits a step of the session may
// take before the loop counts as hung: the disk or the processor may be busy.
const loopGrace = 15 * time.Second

// expectLoop records that the session's loop runs, and that it calls expectLoop
// again within d and loopGrace. Each step that may block passes its time limit.
func (a *Agent) expectLoop(d time.Duration) {
	a.loopDeadline.Store(int64(time.Since(a.startedAt) + d + loopGrace))
}

// expectNothing has systemd wait without a limit until the next expectLoop: this step waits
// for the disk, and a restart would make no disk faster.
func (a *Agent) expectNothing() { a.loopDeadline.Store(math.MaxInt64) }

// watch sends WATCHDOG=1, three times in each WatchdogSec, while the session's loop meets its
// deadline. systemd ends a process that stops sending it. A check that hangs is no reason: it
// is abandoned, and reported as failed.
func (a *Agent) watch(ctx context.Context) error {
	every := watchdogInterval(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")) / 3
	if every == 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	hung := false
	for {
		late := time.Since(a.startedAt) - time.Duration(a.loopDeadline.Load())
		switch {
		case late <= 0:
			hung = false
			a.notify("WATCHDOG=1")
		case !hung:
			hung = true
			a.log.Error("the session's loop hangs; systemd restarts the service", "late", late.Round(time.Millisecond).String())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watchdogInterval returns WatchdogSec= of the unit, or 0 if it is not meant for
// this process (sd_watchdog_enabled(3)).
func watchdogInterval(usec, pid string) time.Duration {
	if pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n < 0 || n > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// statusText is the text that systemctl status shows, in parts. unavailable begins
// with noUpgrades, if it is not empty.
type statusText struct{ service, check, upgrade, unavailable, manager, own string }

const noUpgrades = "upgrades are not possible: "

// showUnavailable puts into the status text why the node refuses upgrades, if they
// are enabled.
func (a *Agent) showUnavailable() {
	text := ""
	if why := a.unavailable(); why != nil && a.c.Upgrade.Enabled {
		text = noUpgrades + release.Foreign(why.Error(), maxReason)
	}
	a.setStatus(func(w *statusText) { w.unavailable = text })
}

// setStatus changes the status text, and sends it to systemd if it is a new one.
func (a *Agent) setStatus(change func(*statusText)) {
	a.mu.Lock()
	before := a.status
	change(&a.status)
	changed := a.status != before
	a.mu.Unlock()
	if changed {
		a.notifyStatus()
	}
	a.publish()
}

// quotesNoPart keeps a text that quotes a manager or a program from passing for another part.
var quotesNoPart = strings.NewReplacer("; connected to", ", connected to", "; not connected to", ", not connected to", "; "+noUpgrades, ", "+noUpgrades, "; "+NoManager, ", "+NoManager)

func (w statusText) String() string {
	var parts []string
	for _, p := range []string{w.service, w.check, w.own, w.upgrade, w.unavailable, w.manager} {
		if p != "" {
			parts = append(parts, quotesNoPart.Replace(strings.Join(strings.Fields(p), " "))) // on one line
		}
	}
	return strings.Join(parts, "; ")
}
