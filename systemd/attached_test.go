package systemd

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

func TestAttachedFit(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"LoadState": "loaded", "StartLimitIntervalUSec": "0", "StartLimitBurst": "5", "Restart": "always",
		"ExecCondition": "{ path=/usr/local/bin/edge-agent ; argv[]=/usr/local/bin/edge-agent watchdog --root /opt/x ; ignore_errors=yes ; pid=0 }",
		"ExecStart":     "{ path=/opt/x/current/app ; argv[]=/opt/x/current/app serve ; ignore_errors=no ; pid=0 }",
	}
	a := Attached{Name: "app.service", Root: "/opt/x"}
	if err := a.fit(good); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct{ key, value, want string }{
		{"LoadState", "not-found", "not-found"},
		{"ExecStart", "{ path=/usr/bin/app ; argv[]=/usr/bin/app ; }", "below /opt/x/current"},
		{"ExecCondition", "", "the watchdog"},
		{"ExecCondition", "{ argv[]=/usr/local/bin/edge-agent watchdog --root /opt/xy ; }", "the watchdog"},
		{"Restart", "on-failure", "must be always"},
		{"StartLimitIntervalUSec", "10s", "StartLimitIntervalSec=0"},
	} {
		p := maps.Clone(good)
		p[tt.key] = tt.value
		if err := a.fit(p); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s=%s: %v, want %q", tt.key, tt.value, err, tt.want)
		}
	}
}

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

// The watchdog is found among several settings of one name.
func TestPropertiesKeepsAllValues(t *testing.T) {
	t.Parallel()
	p := properties("LoadState=loaded\nRestart=always\nStartLimitBurst=5\nStartLimitIntervalUSec=0\n" +
		"ExecStartPre={ argv[]=/opt/x/last-good/e watchdog --root /opt/x ; }\nExecStartPre={ argv[]=/opt/x/previous/e rescue --root /opt/x ; }\n" +
		"ExecStart={ path=/opt/x/current/e ; }\n")
	if err := fit("e.service", "/opt/x", "ExecStartPre", p); err != nil {
		t.Error(err)
	}
}
