package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/trial"
)

// requests are those that ask systemd to end a start of the attached service. Each names the
// start, so that it does nothing once that start is over.
type requests struct {
	a    *Agent
	of   string // the start that must end
	last time.Time
	at   time.Time // of the first request for it
}

// pending reports whether the end of the present start was asked for, and whether nothing
// has served that for a quarter of a window.
func (r *requests) pending(unit trial.Service, now time.Time) (asked, unserved bool) {
	if r.at.IsZero() || r.of != unit.Invocation {
		return false, false
	}
	return true, now.Sub(r.last) >= r.a.c.Window/4
}

// ask asks for the end of the start that unit is in; or, where the agent's own request left
// the service stopped, for another start.
func (r *requests) ask(ctx context.Context, unit trial.Service) {
	now := time.Now()
	log := r.a.log.With("unit", r.a.c.Service.Unit, "start", unit.Invocation)
	if r.of != unit.Invocation || r.at.IsZero() {
		r.of, r.at = unit.Invocation, now
		log.Info("restarting the service")
	} else {
		log.Warn("nothing served the request for a restart; asking again", "since", r.at.UTC().Format(time.RFC3339))
	}
	r.last = now
	if err := r.a.attached.Restart(ctx, unit.Invocation, unit.State == trial.Stopped); err != nil {
		log.Error("the restart of the service could not be requested", "error", err)
	}
}

// errMend ends the agent's process, so that systemd starts with it what serves requests.
var errMend = errors.New("nothing serves the request for a restart: the agent ends itself, so that systemd starts the path unit with it")

// mend returns errMend, once a window at most.
func (r *requests) mend() error {
	if time.Since(r.a.attached.began) < r.a.c.Window {
		return nil
	}
	return errMend
}

// words says how it stands with the request.
func (r *requests) words(unit trial.Service) string {
	switch {
	case unit.State == trial.Stopped:
		return unit.Words
	case r.at.IsZero():
		return "no restart was requested"
	case unit.PathDown:
		return "the path unit that serves the request is not active (edge-agent doctor says how to repair it)"
	}
	return fmt.Sprintf("the request of %s was not served", r.at.UTC().Format(time.RFC3339))
}
