package systemd

import (
	"strings"
	"testing"
)

func TestUnitText(t *testing.T) {
	t.Parallel()
	u := Unit{Name: "edge", Root: "/opt/x", Binary: "edge-agent", User: "edge", WindowSecs: 120, Environment: []string{"A=b"}}
	text, err := u.Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"Type=notify", "Restart=always", "RestartSec=1", "StartLimitIntervalSec=0", "User=edge", "Environment=A=b",
		"ExecStartPre=-/opt/x/last-good/edge-agent watchdog --root /opt/x",
		"ExecStart=/opt/x/current/edge-agent run --config /opt/x/config.toml",
		"TimeoutStartSec=120", "WatchdogSec=30", "ReadWritePaths=/opt/x",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}

func TestUnitRefusesWhatNeedsQuoting(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Unit){
		`name "a b"`:               func(u *Unit) { u.Name = "a b" },
		`root "/opt/%n"`:           func(u *Unit) { u.Root = "/opt/%n" },
		`"opt" is not an absolute`: func(u *Unit) { u.Root = "opt" },
		`user ""`:                  func(u *Unit) { u.User = "" },
		`binary "a\nb"`:            func(u *Unit) { u.Binary = "a\nb" },
		`environment "A=b c"`:      func(u *Unit) { u.Environment = []string{"A=b c"} },
		"no health window":         func(u *Unit) { u.WindowSecs = 0 },
	} {
		u := Unit{Name: "edge", Root: "/opt/x", Binary: "edge-agent", User: "edge", WindowSecs: 120}
		change(&u)
		if _, err := u.Text(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
