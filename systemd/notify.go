// Package systemd is the agent's side of the service manager. It generates unit files
// (Unit.Files), finds the faults of a unit that prevent upgrades and rollbacks
// (Service.Inspect, Service.Fit), reads the state of a unit (QueryState) and its
// journal, and notifies systemd (Notify).
//
// It runs systemctl and journalctl, each for 5 s at most, and needs no privilege. It
// writes no file, and starts and stops nothing; package install does. So nothing of
// it has to be repaired after a crash. The names in an install root come from a
// Layout, which state.Layout implements.
package systemd

import (
	"fmt"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notify sends state to systemd: lines of NAME=VALUE, as in sd_notify(3). Without
// NOTIFY_SOCKET in the environment it does nothing, and returns nil.
func Notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
