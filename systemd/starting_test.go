package systemd

import (
	"slices"
	"testing"
)

// The units beside an instance of a template are no instances of it: systemd would apply
// the template's drop-ins to them.
func TestNamesBesideAService(t *testing.T) {
	t.Parallel()
	if got, want := Beside("edge.service"), []string{"edge-watchdog.service", "edge-retry.service", "edge-restart.service", "edge-respawn.path", "edge-respawn.service"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := Beside("app@1.service"), []string{"app:1-watchdog.service", "app:1-retry.service", "app:1-restart.service", "app:1-respawn.path", "app:1-respawn.service"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStarting(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		job, active, sub string
		want             bool
	}{
		{"12", "inactive", "dead", true},
		{"12", "failed", "failed", true},
		{"12", "activating", "auto-restart", true},
		{"12", "activating", "auto-restart-queued", true},
		{"12", "deactivating", "stop", true}, // the start job waits
		{"12", "active", "running", false},
		{"12", "activating", "start", false},
		{"", "inactive", "dead", false},
		{"0", "activating", "auto-restart", false},
	} {
		if got := starting(map[string]string{"Job": tt.job, "ActiveState": tt.active, "SubState": tt.sub}); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func TestObjectPath(t *testing.T) {
	t.Parallel()
	for unit, want := range map[string]string{"edge.service": "edge_2eservice", "1a-b@x.service": "_31a_2db_40x_2eservice"} {
		if got := objectPath(unit); got != "/org/freedesktop/systemd1/unit/"+want {
			t.Errorf("%s: %s", unit, got)
		}
	}
}
