package systemd

import (
	"errors"
	"strings"
	"testing"
)

func TestAttachedActive(t *testing.T) {
	t.Parallel()
	stopped := errors.New("stopped")
	a := Attached{Name: "app.service", Stopped: stopped}
	for _, tt := range []struct {
		show, start, want string
		stopped           bool
	}{
		{"ActiveState=active\nSubState=running\nResult=success\nInvocationID=abc\n", "abc", "", false},
		{"ActiveState=inactive\nSubState=dead\nResult=success\nInvocationID=\n", "", "stopped", true},
		{"ActiveState=failed\nSubState=failed\nResult=exit-code\nInvocationID=abc\n", "", "result exit-code", false},
		{"ActiveState=activating\nSubState=auto-restart\nResult=exit-code\nInvocationID=abc\n", "", "auto-restart", false},
		{"", "", "app.service is", false},
	} {
		start, err := a.active(properties(tt.show))
		if start != tt.start || (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) || errors.Is(err, stopped) != tt.stopped {
			t.Errorf("%q: %q, %v", tt.show, start, err)
		}
	}
}
