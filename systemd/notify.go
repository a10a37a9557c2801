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
	"net"
	"os"
	"time"
)

// notifyTimeout is how long Notify waits for a systemd that reads nothing.
const notifyTimeout = 100 * time.Millisecond

// Notify sends state to systemd: lines of NAME=VALUE, as in sd_notify(3). Without
// NOTIFY_SOCKET in the environment it does nothing, and returns nil. A systemd that
// reads nothing delays it by 100 ms at most, where daemon.SdNotify of go-systemd would wait
// for ever. After an error send READY=1 again: a unit of Type=notify does not start
// without it. Package agent does.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// A name that begins with "@" is abstract; package net knows that, too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
