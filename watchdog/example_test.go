package watchdog_test

import (
	"context"
	"fmt"

	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/watchdog"
)

// A service calls RunAfter for `player watchdog --root DIR`, its ExecStartPre=. The
// command never fails, so the service starts in any case.
func ExampleRunAfter() {
	root, err := state.At("/opt/acme/player")
	if err != nil {
		fmt.Println(err)
		return
	}
	report := watchdog.RunAfter(context.Background(), root, watchdog.Systemd{LastEnd: systemd.LastEnd, Restarts: systemd.Restarts})
	for _, r := range report.Records() {
		fmt.Println(r.Level, r.Message, r.Fields)
	}
}
