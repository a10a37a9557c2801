// Package systemd talks to the service manager: sd_notify, unit files, what is
// wrong with a unit (Service.Inspect), its state, and its journal. It asks
// systemctl and journalctl, and changes nothing. Outside a unit of Type=notify,
// where there is no NOTIFY_SOCKET, Notify does nothing.
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
