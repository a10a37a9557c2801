package systemd

import (
	"context"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/trial"
)

// Attached is a service that an agent in a unit of its own upgrades. It reads the unit
// with systemctl, as any user may.
type Attached struct {
	Name   string // of the unit, like "app.service"
	Layout Layout // of the install root
	// Ask writes Layout.RestartFile, which app-restart.path waits for: the invocation id of
	// the start that is to end, and whether a service that is inactive is to be started.
	Ask func(invocation string, start bool) error
}

// Restart requests a restart of the unit, by app-restart.service. That does nothing if
// invocation is not the present start of the unit, nor if the unit is inactive and start
// is false. An empty invocation stands for any start.
func (a Attached) Restart(_ context.Context, invocation string, start bool) error {
	return a.Ask(invocation, start)
}

// Look returns the present state of the unit. If systemd did not answer in time, the error
// has a method Timeout that returns true: ask again.
func (a Attached) Look(ctx context.Context) (trial.Service, error) {
	return a.lookFor(ctx, answerTime)
}

// lookFor is Look, which waits that long for the answer.
func (a Attached) lookFor(ctx context.Context, wait time.Duration) (trial.Service, error) {
	units := []string{a.Name, restartUnit(a.Name), restartPath(a.Name)}
	p, err := showAll(ctx, wait, units, slices.Concat(looked, lookedBeside)...)
	if err != nil {
		return trial.Service{}, err
	}
	now, err := monotonic()
	if err != nil {
		return trial.Service{}, err
	}
	self, _ := Self()
	return lookAt(a.Name, self, p, now)
}

// LastEnd returns how the start of the unit before the given one ended, as the function
// LastEnd does.
func (a Attached) LastEnd(ctx context.Context, start string) string {
	return lastEnd(ctx, a.Name, start)
}

// StoppedBy says why the unit, which is stopped, was not started: a unit that it depends on
// failed (JOB_RESULT=dependency in systemd's journal), or a job stopped it. It returns "" if that
// is unknown.
func (a Attached) StoppedBy(ctx context.Context) string {
	out, err := output(ctx, "journalctl", "--quiet", "--no-pager", "--output=json", "--lines=200", "--unit="+a.Name, "_PID=1")
	if err != nil {
		return ""
	}
	return lastJob(out)
}

// Journal is LastLines of the unit.
func (a Attached) Journal(ctx context.Context) ([]string, error) {
	p, err := show(ctx, a.Name, "InvocationID")
	if err != nil {
		return nil, err
	}
	return lastLines(ctx, a.Name, p["InvocationID"])
}

// FitNow is Fit for a command of an operator. A question that systemd does not answer, or a
// machine without systemd, refuses nothing: the command asks no agent.
func (s Service) FitNow(ctx context.Context) error {
	if Booted() != nil {
		return nil
	}
	if err := s.Fit(ctx); unanswered(err) == nil {
		return err
	}
	return nil
}

// Up returns an error if an attached service does not run: an upgrade starts no service that
// does not run, and a repair none that somebody stopped. It is nil if that is unknown.
func (s Service) Up(ctx context.Context, repair bool) error {
	unit, err := Attached{Name: s.Unit, Layout: s.Layout}.Look(ctx)
	if err != nil {
		return nil
	}
	return unit.Upgradable(s.Unit, repair)
}
