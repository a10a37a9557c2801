package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// followWait is how long an agent that differs from current waits until it restarts. An
// operator who changed the link may restart the service, or change the link back.
const followWait = 30 * time.Second

// followCurrent restarts, as after a swap, when current points to another version for
// followWait, that version can run, and nothing is being staged. Until then the node
// reports it, and refuses upgrades.
//
// It only reports the version first, to which current pointed when this process started:
// systemd has just started this version instead, and would do so again.
func (a *Agent) followCurrent(ctx context.Context, first release.Version) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	reported, since := a.c.version, time.Now() // since then current points to reported
	for {
		t, err := a.c.Layout.Tree()
		current := t.Current
		if current.IsZero() {
			current = t.DamagedCurrent // which never runs, and is reported
		}
		if first.IsZero() { // the links could not be read at the start
			first = current
		}
		switch {
		case err != nil || current.IsZero():
		case a.isBusy(): // it may be this agent's own swap, which closes swapped in a moment
			since = time.Now()
		case current != reported:
			reported, since = current, time.Now()
			a.reportDiffers(current, first)
		case current != a.c.version && current != first && time.Since(since) >= followWait && a.runnable(current) && a.claimRestart():
			a.log.Warn("restarting to run the version that current points to", "from", a.c.version.String(), "to", current.String())
			a.closeSwap()
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.swapped:
			return nil
		case <-tick.C:
		}
	}
}

// reportDiffers reports that current points to another version than this process, or
// that it no longer does.
func (a *Agent) reportDiffers(current, first release.Version) {
	switch {
	case current == a.c.version:
		a.setDiffers(nil)
	case current == first && a.runsFrom(current):
		// The directory has another name than the version that the program reports, as an
		// operator may have named it: it is what current points to.
	case current == first:
		a.setDiffers(fmt.Errorf("current points to %s, but this start runs %s: the unit must start %s", current, a.c.version, filepath.Join(a.c.Layout.Current(), a.c.Service.Binary)))
	case !a.runnable(current):
		a.setDiffers(fmt.Errorf("current points to %s, whose program %s cannot be executed, and %s runs: point current to a version that can run", current, a.c.Service.Binary, a.c.version))
	default:
		a.setDiffers(fmt.Errorf("current points to %s, and %s runs: the service restarts in %v to run %s", current, a.c.version, followWait, current))
	}
}

// setDiffers makes err, or nil, the reason for which current does not run.
func (a *Agent) setDiffers(err error) {
	if err != nil {
		a.log.Warn(err.Error(), "version", a.c.version.String())
	} else {
		a.log.Info("the version that current points to runs again", "version", a.c.version.String())
	}
	a.mu.Lock()
	a.differsErr = err
	a.mu.Unlock()
	a.showUnavailable()
	if !a.c.Upgrade.Enabled { // then showUnavailable shows nothing
		a.setStatus(func(w *statusText) {
			if w.unavailable = ""; err != nil {
				w.unavailable = err.Error()
			}
		})
	}
	wake(a.healthDue)
}

// runnable reports whether the program of v can be executed, as far as that is known.
func (a *Agent) runnable(v release.Version) bool {
	return a.c.Layout.WithProgram(a.c.Service.Binary).Damage(v) == ""
}

func (a *Agent) isBusy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.busy
}

// swaps reports whether this agent itself may be pointing current to v.
func (a *Agent) swaps(v release.Version) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.busy && a.staged == v
}

// claimRestart lets no upgrade begin from now on. It reports false if one has begun.
func (a *Agent) claimRestart() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	claimed := !a.busy
	a.busy = true
	return claimed
}

// runsFrom reports whether the program of this process is in the directory of v.
func (a *Agent) runsFrom(v release.Version) bool {
	exe, err := os.Executable()
	if err != nil {
		return false
	}
	dir, err := filepath.EvalSymlinks(a.c.Layout.Version(v))
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, exe)
	return err == nil && filepath.IsLocal(rel)
}
