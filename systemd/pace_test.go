package systemd

import (
	"testing"
	"time"
)

func TestPaceOfRestarts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		restarts    int
		wait, limit time.Duration
		ok          bool
	}{
		"NRestarts=3\nSubState=start-pre\nRestartUSec=100ms\nTimeoutStartUSec=2min":                         {3, 100 * time.Millisecond, 2 * time.Minute, true},
		"NRestarts=3\nSubState=start-pre\nRestartUSec=100ms\nRestartUSecNext=5s\nTimeoutStartUSec=infinity": {3, 5 * time.Second, time.Hour, true},
		"NRestarts=3\nSubState=condition\nRestartUSec=100ms\nTimeoutStartUSec=2min":                         {}, // of an attached service
		"NRestarts=x\nSubState=start-pre":                                                                   {},
		"":                                                                                                  {},
	} {
		restarts, wait, limit, err := pace("edge.service", properties(text))
		if restarts != want.restarts || wait != want.wait || limit != want.limit || (err == nil) != want.ok {
			t.Errorf("%q: %d, %v, %v, %v", text, restarts, wait, limit, err)
		}
	}
}
