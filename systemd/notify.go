// Package systemd talks to the service manager. Today that is sd_notify: what
// a service of Type=notify says about itself. Outside such a unit, where
// there is no NOTIFY_SOCKET, saying something does nothing.
package systemd

import (
	"fmt"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notify sends state, lines of NAME=VALUE as in sd_notify(3).
func Notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
