package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// restartWait is how long a run goes on after it requested a restart. Without an answer it ends,
// as without the request.
const restartWait = time.Second

// leave ends the run for another version, to which current points: it drains, and has systemd
// restart the service. Until systemd does, the service goes on: the downtime begins
// with the end of the context.
func (a *Agent) leave(ctx context.Context) error {
	asks := a.restartsAtOnce(ctx)
	a.drain(ctx)
	if !asks || ctx.Err() != nil {
		return ErrRestart
	}
	if err := a.c.Layout.AskRestart("", false); err != nil {
		a.log.Warn("no restart was requested; systemd starts the service after RestartSec=", "error", err)
		return ErrRestart
	}
	a.log.Info("requested a restart into the new version")
	select {
	case <-ctx.Done():
	case <-time.After(restartWait):
		a.log.Warn("systemd did not restart the service as requested; it does after RestartSec=", "wait", restartWait.String())
		a.withdrawRestart()
	}
	return ErrRestart
}

// restartsAtOnce reports whether systemd restarts the service when asked.
func (a *Agent) restartsAtOnce(ctx context.Context) bool {
	if a.c.CheckRestart == nil || a.attached != nil {
		return false
	}
	err := a.calls.checkRestart.call(ctx, a.c.CheckRestart)
	if err != nil {
		a.log.Debug("systemd starts the new version after RestartSec=", "reason", err)
	}
	return err == nil
}

// withdrawRestart ends a request for a restart: this start is the one that it asked for, or
// ends by itself.
func (a *Agent) withdrawRestart() {
	if _, err := os.Lstat(a.c.Layout.RestartFile()); errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := a.c.Layout.WithdrawRestart(); err != nil {
		a.log.Warn("the request for a restart was not withdrawn", "error", err)
	}
}
