package watchdog_test

import (
	"context"
	"fmt"

	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/watchdog"
)

// What a service runs for `player watchdog --root DIR`, its ExecStartPre=. It never
// fails: the service starts whatever the watchdog finds.
func ExampleRunAfter() {
	root, err := state.At("/opt/acme/player")
	if err != nil {
		fmt.Println(err)
		return
	}
	report := watchdog.RunAfter(context.Background(), root, systemd.LastEnd)
	for _, r := range report.Records() {
		fmt.Println(r.Level, r.Message, r.Fields)
	}
}
