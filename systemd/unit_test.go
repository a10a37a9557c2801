package systemd

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/state"
)

func TestUnitText(t *testing.T) {
	t.Parallel()
	u := Unit{Name: "edge", Layout: at(t, "/opt/x"), Binary: "edge-agent", User: "edge", WindowSecs: 120, Environment: []string{"A=b"}}
	files, err := u.Files()
	if err != nil || len(files) != 6 || files[0].Name != "edge.service" {
		t.Fatal(files, err)
	}
	text := files[0].Text
	for _, line := range []string{
		"Type=notify", "Restart=always", "RestartSec=0.1", "StartLimitIntervalSec=0", "User=edge", "Environment=A=b",
		"ExecStartPre=-/opt/x/last-good/edge-agent watchdog --root /opt/x",
		"ExecStart=/opt/x/current/edge-agent run --config /opt/x/config.toml",
		"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK", "UMask=0077",
		"TimeoutStartSec=120", "WatchdogSec=30", "ReadWritePaths=/opt/x",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}

// systemd waits longer between two starts where it can.
func TestRestartSteps(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{"systemd 252 (252.39-1~deb12u1)\n+PAM": false, "systemd 254 (254.5)": true, "systemd 257.9": true, "": false, "busybox": false} {
		if got := hasRestartSteps(version); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
	const lines = "\nRestartSteps=10\nRestartMaxDelaySec=10\n"
	for _, tt := range []struct {
		steps bool
		secs  float64
		want  bool
	}{{false, 0, false}, {true, 0, true}, {true, 2.5, true}, {true, 10, false}} { // a longer RestartSec= would become shorter
		files, err := Unit{Name: "edge", Layout: at(t, "/opt/x"), Binary: "edge-agent", User: "edge", WindowSecs: 120, Steps: tt.steps, RestartSecs: tt.secs}.Files()
		if err != nil || strings.Contains(files[0].Text, lines) != tt.want || strings.Contains(files[0].Text, "{{") {
			t.Errorf("%+v: %v\n%s", tt, err, files[0].Text)
		}
	}
}

// The sandbox hides /home, unless the service must write below it.
func TestUnitOfARootBelowHome(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		root     string
		writable []string
		want     string
	}{
		{"/opt/x", nil, "yes"}, {"/opt/x", []string{"/data"}, "yes"}, {"/homes/x", nil, "yes"},
		{"/home/alice/x", nil, "read-only"}, {"/root/x", nil, "read-only"}, {"/run/user/1/x", nil, "read-only"}, {"/opt/x", []string{"/home/alice"}, "read-only"},
	} {
		for _, attached := range []string{"", "app.service"} {
			u := Unit{Name: "edge", Layout: at(t, tt.root), Binary: "app", User: "edge", WindowSecs: 120, Linked: tt.writable, Attached: attached, Agent: "/usr/bin/edge-agent"}
			files, err := u.Files()
			if err != nil || !strings.Contains(files[0].Text, "\nProtectHome="+tt.want+"\n") || !strings.Contains(files[0].Text, "\nReadWritePaths="+tt.root+"\n") {
				t.Errorf("%s, writable %q: %v\n%s", tt.root, tt.writable, err, files[0].Text)
			}
		}
	}
}

// unclean is a layout whose root is any text.
type unclean struct {
	state.Layout
	root string
}

func (l unclean) Root() string { return l.root }

func TestUnitRefusesWhatNeedsQuoting(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Unit){
		`name "a b"`:               func(u *Unit) { u.Name = "a b" },
		`root "/opt/%n"`:           func(u *Unit) { u.Layout = unclean{at(t, "/opt/x"), "/opt/%n"} },
		`"opt" is not an absolute`: func(u *Unit) { u.Layout = unclean{at(t, "/opt/x"), "opt"} },
		`user ""`:                  func(u *Unit) { u.User = "" },
		`binary "a\nb"`:            func(u *Unit) { u.Binary = "a\nb" },
		`environment "A=b c"`:      func(u *Unit) { u.Environment = []string{"A=b c"} },
		`name "../x"`:              func(u *Unit) { u.Name = "../x" },
		`name "a/b"`:               func(u *Unit) { u.Name = "a/b" },
		`name ".."`:                func(u *Unit) { u.Name = ".." },
		`name "-x"`:                func(u *Unit) { u.Name = "-x" },
		`user "-x"`:                func(u *Unit) { u.User = "-x" },
		`user "a:b"`:               func(u *Unit) { u.User = "a:b" },
		`root "/opt/../etc"`:       func(u *Unit) { u.Layout = unclean{at(t, "/opt/x"), "/opt/../etc"} },
		`root "/"`:                 func(u *Unit) { u.Layout = unclean{at(t, "/opt/x"), "/"} },
		`binary "../../bin/sh"`:    func(u *Unit) { u.Binary = "../../bin/sh" },
		`binary "a/../../x"`:       func(u *Unit) { u.Binary = "a/../../x" },
		`binary "/bin/sh"`:         func(u *Unit) { u.Binary = "/bin/sh" },
		`binary "-x"`:              func(u *Unit) { u.Binary = "-x" },
		`binary "."`:               func(u *Unit) { u.Binary = "." },
		`binary "a%n"`:             func(u *Unit) { u.Binary = "a%n" },
		"agent \"/usr/bin/a b\"":   func(u *Unit) { u.Attached, u.Agent = "app.service", "/usr/bin/a b" },
		`unit "../app"`:            func(u *Unit) { u.Attached, u.Agent = "../app.service", "/usr/bin/a" },
		`unit "-app.service"`:      func(u *Unit) { u.Attached, u.Agent = "-app.service", "/usr/bin/a" },
		`unit "app.timer"`:         func(u *Unit) { u.Attached, u.Agent = "app.timer", "/usr/bin/a" },
		"agent /opt/y/../x/a":      func(u *Unit) { u.Attached, u.Agent = "app.service", "/opt/y/../x/a" },
		"no health window":         func(u *Unit) { u.WindowSecs = 0 },
	} {
		u := Unit{Name: "edge", Layout: at(t, "/opt/x"), Binary: "edge-agent", User: "edge", WindowSecs: 120}
		change(&u)
		if _, err := u.Files(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestUnitFilesOfAttachedMode(t *testing.T) {
	t.Parallel()
	u := Unit{Name: "app", Layout: at(t, "/opt/x"), Binary: "app", User: "upd", WindowSecs: 120, Attached: "app.service", Agent: "/usr/local/bin/edge-agent"}
	files, err := u.Files()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range files {
		got[f.Name] = f.Text
	}
	for name, lines := range map[string][]string{
		"app-agent.service":                {"User=upd", "Wants=app-restart.path", "ExecStart=/usr/local/bin/edge-agent run --config /opt/x/config.toml", "NoNewPrivileges=yes"},
		"app.service.d/50-edge-agent.conf": {"StartLimitIntervalSec=0", "Wants=app-watchdog.service", "After=app-watchdog.service", "Restart=always", "ExecCondition=+-/usr/local/bin/edge-agent watchdog --root /opt/x"},
		"app-restart.path":                 {"PathChanged=/opt/x/restart", "Unit=app-restart.service", "StartLimitIntervalSec=0"},
		"app-watchdog.service":             {"User=upd", "Wants=app-retry.service", "ExecStart=+-/usr/local/bin/edge-agent watchdog --before app.service --root /opt/x", "NoNewPrivileges=yes"},
		"app-retry.service":                {"User=upd", "After=app.service", "ExecCondition=+/usr/local/bin/edge-agent watchdog --after app.service --root /opt/x", "ExecStart=/usr/local/bin/edge-agent restart --request --unit app.service --root /opt/x"},
		"app-restart.service":              {"StartLimitIntervalSec=0", "ExecStart=/usr/local/bin/edge-agent restart --unit app.service --root /opt/x", "NoNewPrivileges=yes", "ReadWritePaths=", "CapabilityBoundingSet=CAP_DAC_READ_SEARCH"},
	} {
		for _, line := range lines {
			if !strings.Contains(got[name], "\n"+line+"\n") {
				t.Errorf("no line %q in %s:\n%s", line, name, got[name])
			}
		}
	}
	if len(files) != 6 {
		t.Errorf("%d files", len(files))
	}
	u.Early = true // an order would be a cycle
	if files, err = u.Files(); err != nil || strings.Contains(files[1].Text, "-watchdog.service\n") {
		t.Errorf("%v, %s", err, files[1].Text)
	}
	for want, agent := range map[string]string{"not an absolute path": "edge-agent", "inside the install root": "/opt/x/current/edge-agent"} {
		u.Agent = agent
		if _, err := u.Files(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("agent %s: %v", agent, err)
		}
	}
}

// The sandbox permits writing to the targets of an administrator's links. A missing target
// does not prevent a start.
func TestUnitOfARootWithLinks(t *testing.T) {
	t.Parallel()
	u := Unit{Name: "edge", Layout: at(t, "/opt/x"), Binary: "edge-agent", User: "edge", WindowSecs: 10, Linked: []string{"/data/versions", "/var/lib/outbox"}}
	files, err := u.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nReadWritePaths=/opt/x\n", "\nReadWritePaths=-/data/versions\n", "\nReadWritePaths=-/var/lib/outbox\nUMask="} {
		if !strings.Contains(files[0].Text, want) {
			t.Errorf("no %q in:\n%s", want, files[0].Text)
		}
	}
	for _, bad := range []string{"data", "/data/../etc", "/data/a b", "/data/%n", "/data\nExecStart=/bin/sh"} {
		u.Linked = []string{bad}
		if _, err := u.Files(); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
