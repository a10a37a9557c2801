package systemd

import (
	"errors"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/trial"
)

func TestPointlessRequests(t *testing.T) {
	t.Parallel()
	id, other := strings.Repeat("a", 32), strings.Repeat("b", 32)
	for _, tt := range []struct {
		state      trial.Unit
		present    string
		invocation string
		start      bool
		want       string // part of the reason; "": it is served
	}{
		{trial.Up, id, id, false, ""},
		{trial.Up, id, id, true, ""},
		{trial.Down, id, id, false, ""},
		{trial.Stopped, id, id, true, ""},
		{trial.Stopped, id, id, false, "somebody stopped"},
		{trial.Between, id, id, false, "ends already"},
		{trial.Between, id, id, true, "ends already"},
		{trial.Up, other, id, true, "is over"},
		{trial.Stopped, other, id, true, "is over"},
		{trial.Stopped, "", id, true, "is over"},
		{trial.Stopped, "", NeverStarted, true, ""},
		{trial.Up, other, NeverStarted, true, "is over"},
		{trial.Up, id, "", true, ""}, // of an earlier agent
		{trial.Stopped, id, "", true, ""},
	} {
		got := pointless(trial.Service{State: tt.state, Invocation: tt.present}, tt.invocation, tt.start)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

func TestServed(t *testing.T) {
	t.Parallel()
	systemctl := func(text string) error { return errors.New("systemctl restart: exit status 1: " + text) }
	for _, tt := range []struct {
		state      trial.Unit
		invocation string // before, it was "a"
		failed     error
		did        string
		notStarted bool
	}{
		{trial.Up, "b", nil, "restarted", false},
		{trial.Down, "b", systemctl("Job for app.service failed because the control process exited with error code."), "restarted", false},
		{trial.Stopped, "a", systemctl("A dependency job for app.service failed. See 'journalctl -xe' for details."), "", true},
		{trial.Stopped, "a", systemctl("Job for app.service timed out."), "", true},
		{trial.Stopped, "a", nil, "", true}, // a condition is not met
		{trial.Stopped, "a", systemctl("Job for app.service canceled."), "takes precedence", false},
		{trial.Between, "a", systemctl("Failed to restart app.service: Transaction for app.service/restart is destructive (app.service has 'stop' job queued, but 'start' is included in transaction)."), "takes precedence", false},
		{trial.Up, "a", systemctl("Failed to restart app.service: Unit app.service is masked."), "", false},
	} {
		did, err := Attached{Name: "app.service"}.served(trial.Service{Invocation: "a"}, trial.Service{State: tt.state, Invocation: tt.invocation, Words: "app.service is so"}, tt.failed)
		if !strings.Contains(did, tt.did) || (err == nil) != (tt.did != "") || errors.Is(err, ErrNotStarted) != tt.notStarted || err != nil && !strings.Contains(err.Error(), "systemctl status app.service") {
			t.Errorf("%+v: %q, %v", tt, did, err)
		}
	}
}
