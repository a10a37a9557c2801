package agent

import (
	"fmt"

	"github.com/bilbycast/edge-agent/internal/state"
)

// readyOnTrial reports to systemd that the version on trial serves, since its check passes, and
// records that by record: if an operator or another unit ends the start from here on, that is no
// failure of the version. An error means that systemd does not know it, as when Notify fails:
// systemd ends such a start, so the version is not ready. notifyAgain repeats READY=1; call
// readyOnTrial again until it returns nil.
func (a *Agent) readyOnTrial(s state.State, record func(func(*state.JudgeRecord))) error {
	if err := a.unsent.problem(); err != nil {
		return err
	}
	// The record comes first: an operator may restart the service as soon as systemd knows.
	passed := false
	record(func(r *state.JudgeRecord) { passed, r.Ready, r.Passed = r.Passed, true, true })
	a.sendReady(s.Status)
	err := a.unsent.problem()
	if err != nil {
		record(func(r *state.JudgeRecord) { r.Ready, r.Passed = false, passed })
	}
	return err
}

// problem returns why systemd was not told that the service is ready, or nil.
func (u *unsent) problem() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ready == nil {
		return nil
	}
	return fmt.Errorf("systemd was not told that the service is ready (READY=1), and would end it: %w", u.ready)
}

// ready reports to systemd that the service is up. The status text goes first, so
// that systemctl status has it when systemctl start returns.
func (a *Agent) ready(res state.Result) {
	a.setStatus(func(w *statusText) {
		w.service, w.upgrade = a.c.version.String()+" runs", ""
		if a.c.version.IsZero() {
			w.service = "no version is installed"
		}
		if res.State.Status == state.RolledBack {
			w.upgrade = fmt.Sprintf("rolled back from %s: %s", res.State.Target, res.State.Reason)
		}
	})
	a.sendReady(res.State.Status)
}

// sendReady sends READY=1, once.
func (a *Agent) sendReady(status state.Status) {
	a.mu.Lock()
	sent := a.readySent
	a.readySent = true
	a.mu.Unlock()
	if sent {
		return
	}
	a.notify("READY=1")
	a.log.Info("ready", "version", a.c.version.String(), "status", string(status))
}

// isReady reports whether READY=1 was sent.
func (a *Agent) isReady() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.readySent
}
