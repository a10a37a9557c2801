package systemd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/trial"
)

// ErrNotStarted reports that a restart left the service inactive, by no word of anybody: a unit
// that it depends on failed, or a condition of its unit is not met.
var ErrNotStarted = errors.New("systemd stopped the service and did not start it")

// NotStartedStatus is the exit status of app-restart.service for ErrNotStarted. Look tells by it
// who stopped the service.
const NotStartedStatus = 4

// NeverStarted stands, in a request, for the invocation id of a service that was not started
// since the boot.
const NeverStarted = "00000000000000000000000000000000"

// serveWait limits each question of Serve to systemd. Nothing else waits for the answer.
const serveWait = 2 * time.Minute

// Serve does, as root, what Restart requests, and returns in words what it did. It waits until
// the new start has begun, and not until that is ready.
func (a Attached) Serve(ctx context.Context, invocation string, start bool) (did string, err error) {
	before, err := a.lookFor(ctx, serveWait)
	if err != nil {
		return "", err
	}
	if why := pointless(before, invocation, start); why != "" {
		return "nothing is to be done: " + why, nil
	}
	if before.State == trial.Stopped {
		a.awaitRetry(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.restart(ctx) }()
	for {
		select {
		case failed := <-ended:
			now, err := a.lookFor(ctx, serveWait)
			if err != nil {
				return "", errors.Join(failed, err)
			}
			return a.served(before, now, failed)
		case <-time.After(stopPoll):
		}
		if now, err := a.lookFor(ctx, serveWait); err == nil && now.Invocation != before.Invocation {
			cancel() // the job goes on without systemctl
			<-ended
			return a.served(before, now, nil)
		}
	}
}

// pointless returns why a request is for a start that is over, or which is not to end.
func pointless(s trial.Service, invocation string, start bool) string {
	switch {
	case invocation == "":
		return ""
	case cmp.Or(s.Invocation, NeverStarted) != invocation:
		return fmt.Sprintf("the start %s is over, and %s", invocation, s.Words)
	case s.State == trial.Between:
		return "that start ends already: " + s.Words
	case s.State == trial.Stopped && !start:
		return "somebody stopped the service: " + s.Words
	}
	return ""
}

// restart restarts the service, and returns when its start is ready, or has failed. A stop
// that somebody else requested meanwhile takes precedence over it.
func (a Attached) restart(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, Program("systemctl"), "--job-mode=fail", "restart", "--", a.Name)
	cmd.Env, cmd.Stdin = systemEnv, strings.NewReader("") // a nil Stdin needs /dev/null
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	return fmt.Errorf("systemctl restart: %w: %s", err, strings.TrimSpace(string(out[:min(len(out), maxLine)])))
}

// served returns what a restart came to, with the error of systemctl.
func (a Attached) served(before, now trial.Service, failed error) (did string, err error) {
	switch {
	case now.Invocation != before.Invocation: // if it fails, that is its own failure, and counts
		return "restarted: " + now.Words, nil
	case failed != nil && (strings.Contains(failed.Error(), "canceled") || strings.Contains(failed.Error(), "destructive")):
		return fmt.Sprintf("somebody stops or starts it, which takes precedence: %s (%v)", now.Words, failed), nil
	case now.State == trial.Stopped:
		return "", errors.Join(fmt.Errorf("%w: %s; see which unit failed, or which condition is not met: systemctl status %s", ErrNotStarted, now.Words, a.Name), failed)
	case failed != nil:
		return "", fmt.Errorf("%s: %w; see why: systemctl status %s", now.Words, failed, a.Name)
	}
	return "no new start: " + now.Words, nil
}

// awaitRetry waits while app-retry.service, which may have made the request, still runs: it
// follows each start of the service once, and not twice in one run.
func (a Attached) awaitRetry(ctx context.Context) {
	for range 20 {
		p, err := show(ctx, retryUnit(a.Name), "ActiveState")
		if err != nil || p["ActiveState"] != "activating" {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(stopPoll):
		}
	}
}
