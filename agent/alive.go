package agent

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// slack is what a step of the session may take beyond its own time limits
// before the loop counts as hung: a busy disk, a slow processor.
const slack = 15 * time.Second

// stir says that the session's loop is alive, and that it will say so again
// within d and the slack. Each step that may block says how long it may.
func (a *Agent) stir(d time.Duration) {
	a.due.Store(int64(time.Since(a.began) + d + slack))
}

// watch sends WATCHDOG=1, three times in each WatchdogSec, as long as the
// session's loop keeps its word. systemd ends a process that stops.
func (a *Agent) watch(ctx context.Context) error {
	every := watchdogInterval(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")) / 3
	if every == 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	hung := false
	for {
		late := time.Since(a.began) - time.Duration(a.due.Load())
		switch {
		case late <= 0:
			hung = false
			a.notify("WATCHDOG=1")
		case !hung:
			hung = true
			a.log.Error().Str("late", late.Round(time.Millisecond).String()).Msg("the session's loop hangs; systemd will restart the service")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watchdogInterval is WatchdogSec= of the unit, or 0 if it is not for this
// process (sd_watchdog_enabled(3)).
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

// words are the parts of the sentence that systemctl status shows. unable begins
// with noUpgrades, if it is not empty.
type words struct{ service, upgrade, unable, manager string }

const noUpgrades = "upgrades are not possible: "

// sayUnable reports why the node takes no upgrade, if it would otherwise.
func (a *Agent) sayUnable() {
	text := ""
	if why := a.unusable(); why != nil && a.c.Upgrade.Enabled {
		text = noUpgrades + release.Foreign(why.Error(), maxReason)
	}
	a.say(func(w *words) { w.unable = text })
}

// say changes the sentence, and tells systemd if it is another one now.
func (a *Agent) say(change func(*words)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.words
	change(&a.words)
	if a.words != before {
		a.notify("STATUS=" + a.words.String())
	}
}

func (w words) String() string {
	var parts []string
	for _, p := range []string{w.service, w.upgrade, w.unable, w.manager} {
		if p != "" {
			parts = append(parts, strings.Join(strings.Fields(p), " ")) // on one line
		}
	}
	return strings.Join(parts, "; ")
}
