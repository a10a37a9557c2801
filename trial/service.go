package trial

import (
	"fmt"
	"time"
)

// Service is what systemd says of an attached service, at one moment.
type Service struct {
	State Unit
	// Active: it is up, with its main process. It has ended its start.
	Active bool
	// Invocation is the id of the present start, or of the last one. It may be "" while
	// nothing runs.
	Invocation string
	// Begin is when that start began, by CLOCK_MONOTONIC: with its main process, or with its
	// first command before that. Age is how long ago that was. Both are 0 if the service was
	// never started.
	Begin, Age time.Duration
	// Ran: the main process of that start was started.
	Ran bool
	// Restarts is how often systemd restarted the service by itself since a job started it
	// (NRestarts); -1: unknown.
	Restarts int
	// StartLimit is TimeoutStartSec=, or 0 if it is infinite, or if the service is active as
	// soon as its program runs.
	StartLimit time.Duration
	// Retries: the start ended by itself, and systemd starts the service again (Between).
	Retries bool
	// Queued: nothing runs, and a job that starts the service waits (Between).
	Queued bool
	// Words describe all that: "app.service is failed (failed, result exit-code)".
	Words string
	// OwnStop: the agent's own request stopped the service, and systemd did not start it again: a
	// unit that it depends on failed, or a condition of its unit is not met.
	OwnStop bool
	// PathDown: the unit that waits for requests is not active, and a start of this process's
	// unit would start it.
	PathDown bool
}

// Upgradable returns an error if the service with that name does not run: an upgrade starts no
// service that does not run, and a repair none that somebody stopped.
func (s Service) Upgradable(name string, repair bool) error {
	switch {
	case s.Active, repair && s.State != Stopped:
		return nil
	case s.State == Stopped:
		return fmt.Errorf("%s: an upgrade starts no stopped service; start it first: systemctl start %s", s.Words, name)
	}
	return fmt.Errorf("%s: an upgrade starts no service that does not run; start it first: systemctl start %s; or declare this release the repair (--repair)", s.Words, name)
}
