package systemd

import (
	"context"
	"strings"
)

// watchdogUnit is the unit that systemd starts before each start of a service: it counts,
// or rolls back. No setting of the service can keep it from running.
func watchdogUnit(service string) string {
	return strings.TrimSuffix(service, ".service") + "-watchdog.service"
}

// retryUnit is the unit that systemd starts after each start of a service, to repeat one
// that systemd skipped.
func retryUnit(service string) string {
	return strings.TrimSuffix(service, ".service") + "-retry.service"
}

// Beside returns the names of the units that belong to the unit of a service which is its
// own agent: see Unit.Files.
func Beside(service string) []string {
	return []string{watchdogUnit(service), retryUnit(service), restartUnit(service)}
}

// restartUnit is the unit that starts, or restarts, a service for retryUnit.
func restartUnit(service string) string {
	return strings.TrimSuffix(service, ".service") + "-restart.service"
}

// Other is the name of another unit than that of this process, like "edge.service".
type Other string

// LastEnd returns how the last start of the unit ended, as the function LastEnd does.
func (o Other) LastEnd(ctx context.Context) string { return lastEnd(ctx, string(o), "") }

// Restarts returns what the function Restarts does, of the unit. While systemd is about to
// start the unit for an operator, this is still the number before: systemd clears it
// when the unit itself starts.
func (o Other) Restarts(ctx context.Context) (int, error) { return restarts(ctx, string(o)) }

// IsEarly reports whether the unit starts before basic.target, as far as systemd knows it. An
// order after a common unit would then be a cycle, which systemd breaks by not starting
// one of the two.
func (o Other) IsEarly(ctx context.Context) bool {
	p, err := show(ctx, string(o), "LoadState", "DefaultDependencies")
	return err == nil && p["LoadState"] == "loaded" && p["DefaultDependencies"] == "no"
}

// Starting reports whether systemd is about to start the unit: a job waits for this
// process, and nothing of the unit runs. It returns true if that is unknown.
func (o Other) Starting(ctx context.Context) bool {
	p, err := show(ctx, string(o), "Job", "ActiveState", "SubState")
	return err != nil || starting(p)
}

func starting(p map[string]string) bool {
	if p["Job"] == "" || p["Job"] == "0" {
		return false
	}
	// A start job of a unit that is up does nothing.
	return p["ActiveState"] == "inactive" || p["ActiveState"] == "failed" || strings.HasPrefix(p["SubState"], "auto-restart")
}

// Skipped returns why the last start of the unit ended before the unit ran anything, if
// systemd does not try again by itself: a condition is not met, or the unit failed. It
// returns "" otherwise, and if that is unknown.
func (o Other) Skipped(ctx context.Context) string {
	s, err := QueryState(ctx, string(o))
	if err != nil {
		return ""
	}
	return s.skipped()
}

func (s State) skipped() string {
	switch {
	case s.Active == "inactive" && (s.Unmet || s.Result == "exec-condition"), s.Active == "failed":
		return s.EndReason()
	}
	return ""
}
