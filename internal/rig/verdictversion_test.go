package rig_test

import (
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/internal/line"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// versionFaults are the faults of 1.1.0 in a sound world.
func versionFaults() []verdict {
	rows := []verdict{
		{name: "cannot exec", swap: cannotExec, during: func(*world) {}},
		{name: "exits 0 at once", fault: "exits-with-0"},
		{name: "crashes at once", fault: "exits-at-once"},
		{name: "segfaults", fault: "segfaults"},
		{name: "crashes after 30 s", fault: "crashes-after " + (hold * 3 / 4).String()},
		{name: "crashes after authentication", fault: "crashes-authenticated"},
		{name: "crashes after it completed", fault: "crashes-after " + (window * 3 / 4).String(), events: []string{"upgrade_completed", "upgrade_rolled_back"}},
		{name: "hangs", fault: "hangs"},
		{name: "check fails", fault: "never-healthy"},
		{name: "check fails while the manager answers 503", fault: "never-healthy", swap: answersStatus(503, "Retry-After", "8"),
			during: func(w *world) { w.until("the rollback", func() bool { return w.now() == rolledBack }) }},
		{name: "check flaps", fault: "check-flaps " + hold.String()},
		{name: "rejects the manager's CA", fault: "rejects-the-ca"},
		{name: "cannot resolve", fault: "cannot-resolve"},
		{name: "never connects", fault: "never-authenticates"},
		{name: "ignores the proxy", fault: "ignores-the-proxy", config: throughAProxy},
		{name: "speaks a newer wire version that is never answered", swap: sessions(func(_ *world, auth *wire.Auth, conn *websocket.Conn) bool {
			if auth.SoftwareVersion == "1.1.0" && !auth.Probe {
				line.Hold(conn)
				return false
			}
			return true
		}), during: func(*world) {}, heal: func(*world) {}},
		{name: "is refused, and its predecessor is not", swap: sessions(func(_ *world, auth *wire.Auth, conn *websocket.Conn) bool {
			if auth.SoftwareVersion == "1.1.0" && !auth.Probe {
				refuse(conn, "not accepted: this version does not speak the protocol")
				return false
			}
			return true
		}), during: func(*world) {}, heal: func(*world) {}, finds: []string{`"contradictions":6`, "this version does not speak the protocol", "reached held", `"probe_before":"`}},
		{name: "destroys its credentials", fault: "destroys-credentials"},
		{name: "reports another version", fault: "wrong-version"},
		{name: "uses up all file descriptors", fault: "uses-up-files"},
	}
	for i := range rows {
		rows[i].end = rolledBack
	}
	return rows
}

// cannotExec takes from the new version's program the permission to run it.
func cannotExec(w *world) {
	if err := os.Chmod(filepath.Join(w.node.Root, "versions", "1.1.0", "edge-agent"), 0o644); err != nil {
		w.t.Error(err)
	}
}
