package systemd

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
)

// watchdogUnit is the unit that systemd starts before each start of a service: it counts,
// or rolls back. No setting of the service can keep it from running.
func watchdogUnit(service string) string { return besideName(service) + "-watchdog.service" }

// besideName starts the names of units beside a service. The name of an instance of a
// template loses its "@": systemd would apply the drop-ins of the template to the units.
func besideName(service string) string {
	return strings.ReplaceAll(strings.TrimSuffix(service, ".service"), "@", ":")
}

// retryUnit is the unit that systemd starts after each start of a service, to repeat one
// that systemd skipped.
func retryUnit(service string) string { return besideName(service) + "-retry.service" }

// Beside returns the names of the units that belong to the unit of a service which is its
// own agent: see Unit.Files.
func Beside(service string) []string {
	return []string{watchdogUnit(service), retryUnit(service), restartUnit(service), respawnPath(service), respawnUnit(service)}
}

// respawnPath is the unit that starts respawnUnit when a service, which is its own agent,
// requests its restart. The unit of the service starts it.
func respawnPath(service string) string { return besideName(service) + "-respawn.path" }

// respawnUnit is the unit that restarts a service into another version.
func respawnUnit(service string) string { return besideName(service) + "-respawn.service" }

// restartUnit is the unit that starts, or restarts, a service for retryUnit.
func restartUnit(service string) string { return besideName(service) + "-restart.service" }

// restartPath is the unit that starts restartUnit when an attached agent requests it.
func restartPath(service string) string {
	return strings.TrimSuffix(service, ".service") + "-restart.path"
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
	// A start job of a unit that is up does nothing; one of a unit that stops waits.
	return slices.Contains([]string{"inactive", "failed", "deactivating"}, p["ActiveState"]) || strings.HasPrefix(p["SubState"], "auto-restart")
}

// NotMade reports whether the last start of the unit was skipped, or failed because another
// unit did. It returns false if that is unknown.
func (o Other) NotMade(ctx context.Context) bool {
	s, err := QueryState(ctx, string(o))
	return err == nil && s.notMade()
}

func (s State) notMade() bool {
	return s.Active == "inactive" && (s.Unmet || s.Result == "success" || s.Result == "exec-condition")
}

// stopPoll is how often systemd is asked about a unit that stops, or asked again.
const stopPoll = 500 * time.Millisecond

// Skipped reports whether the unit is down and systemd does not try again by itself: a
// condition is not met, a unit that it requires failed, or its restarts are used up. It
// returns why, as far as systemd says, and the invocation id of its last run. It waits
// while the unit stops, and asks again if systemd does not answer.
func (o Other) Skipped(ctx context.Context) (down bool, why, invocation string) {
	if Booted() != nil {
		return false, "", ""
	}
	for {
		s, p, err := queryState(ctx, string(o), "Job", "InvocationID")
		switch {
		case err != nil: // no answer is no reason to leave the service down
		case p["Job"] != "" && p["Job"] != "0":
			return false, "", ""
		case s.Active == "inactive", s.Active == "failed":
			return true, cmp.Or(s.EndReason(), "systemd did not start it, as another unit failed, or its start was cancelled"), p["InvocationID"]
		case s.Active != "deactivating":
			return false, "", ""
		}
		select {
		case <-ctx.Done():
			return false, "", ""
		case <-time.After(stopPoll):
		}
	}
}
