package systemd

import (
	"strings"
	"testing"
)

// LoopReason and StartCommand of services that do not run.
func TestWhyNotStarted(t *testing.T) {
	t.Parallel()
	const at = "Wed 2026-11-25 22:29:55 UTC"
	for _, tt := range []struct{ show, why, start string }{
		{"LoadState=loaded\nActiveState=inactive\nResult=success\nConditionResult=yes\nConditionTimestamp=" + at + "\nAssertResult=yes\nAssertTimestamp=" + at, "", "systemctl start e.service"},
		{"LoadState=loaded\nActiveState=inactive\nResult=success\nConditionResult=no\nConditionTimestamp=\nAssertResult=no\nAssertTimestamp=", "", "systemctl start e.service"},
		{"LoadState=loaded\nActiveState=inactive\nResult=success\nConditionResult=no\nConditionTimestamp=" + at, "a condition of its unit", "see the condition that is not met (systemctl status e.service)"},
		{"LoadState=loaded\nActiveState=inactive\nResult=success\nConditionResult=yes\nConditionTimestamp=" + at + "\nAssertResult=no\nAssertTimestamp=" + at, "a condition of its unit", "see the condition"},
		{"LoadState=loaded\nActiveState=inactive\nResult=exec-condition\nConditionResult=no\nConditionTimestamp=" + at, "ExecCondition=", "see the condition"},
		{"LoadState=masked\nActiveState=inactive\nResult=success", "", "systemctl unmask e.service && systemctl start e.service"},
		{"ActiveState=failed\nResult=timeout\nRuntimeMaxUSec=5s", "RuntimeMaxSec=5s", ""},
		{"ActiveState=active\nResult=success\nRuntimeMaxUSec=5s", "RuntimeMaxSec=5s", ""},
		{"ActiveState=active\nResult=success\nRuntimeMaxUSec=infinity", "", ""},
		{"ActiveState=failed\nResult=something-new", `result is "something-new"`, ""},
	} {
		s := stateOf("e.service", properties(tt.show))
		if why := s.LoopReason(); !strings.Contains(why, tt.why) || (why == "") != (tt.why == "") || !strings.HasPrefix(s.StartCommand(), tt.start) {
			t.Errorf("%q: %q, %q; want %q, %q", tt.show, why, s.StartCommand(), tt.why, tt.start)
		}
	}
}
