package systemd

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/google/go-cmp/cmp"
)

// who returns the user of the tests, who owns the roots that they create.
func who(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

func at(t *testing.T, root string) state.Layout {
	t.Helper()
	l, err := state.At(root)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// shownGood is what systemctl show prints for the unit of Unit.Files.
func shownGood(root, user string) string {
	return strings.NewReplacer("ROOT", root, "WHO", user).Replace(`LoadState=loaded
FragmentPath=/nonexistent/edge.service
DropInPaths=
NeedDaemonReload=no
UnitFileState=enabled
Restart=always
RestartPreventExitStatus=
RemainAfterExit=no
RestartUSec=1s
StartLimitIntervalUSec=0
StartLimitBurst=5
ExecStartPre={ path=ROOT/last-good/edge-agent ; argv[]=ROOT/last-good/edge-agent watchdog --root ROOT ; ignore_errors=yes ; start_time=[n/a] ; pid=0 }
ExecStartPre={ path=ROOT/previous/edge-agent ; argv[]=ROOT/previous/edge-agent rescue --root ROOT ; ignore_errors=yes ; start_time=[n/a] ; pid=0 }
ExecStart={ path=ROOT/current/edge-agent ; argv[]=ROOT/current/edge-agent run --config ROOT/config.toml ; ignore_errors=no ; start_time=[n/a] ; pid=0 }
Type=notify
NotifyAccess=main
User=WHO
DynamicUser=no
TimeoutStartUSec=2min
WatchdogUSec=30s
ProtectSystem=strict
ProtectHome=no
PrivateTmp=no
ReadWritePaths=ROOT
RestrictAddressFamilies=AF_NETLINK AF_UNIX AF_INET AF_INET6
PrivateNetwork=no
`)
}

// Each fault of a linked unit is found by its own check, and by no other one,
// with a remedy that names the setting.
func TestFitEveryProblem(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(root), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	good := shownGood(root, who(t))
	pre := func(line string) string {
		return "ExecStartPre={ " + strings.ReplaceAll(line, "ROOT", root) + " ; start_time=[n/a] ; pid=0 }"
	}
	start := func(path, args string) string {
		path = strings.ReplaceAll(path, "ROOT", root)
		return "ExecStart={ path=" + path + " ; argv[]=" + path + strings.ReplaceAll(args, "ROOT", root) + " ; ignore_errors=no ; pid=0 }"
	}
	other := "daemon"
	if who(t) == other {
		other = "bin"
	}
	const watchdog = "path=ROOT/last-good/edge-agent ; argv[]=ROOT/last-good/edge-agent watchdog --root ROOT ; ignore_errors=yes"
	for _, tt := range []struct {
		lines         string // that replace those of the same settings
		check, remedy string // "" for check: it is well
		rollback      bool
	}{
		{"", "", "", false},
		{"LoadState=not-found", "unit file", "edge-agent unit --config", true},
		{"LoadState=masked", "unit file", "systemctl unmask edge.service", true},
		{"LoadState=bad-setting", "unit file", "systemd-analyze verify edge.service", true},
		{"NeedDaemonReload=yes", "daemon-reload", "systemctl daemon-reload", false},
		{"UnitFileState=disabled", "enabled", "systemctl enable edge.service", false},
		{"UnitFileState=masked-runtime", "enabled", "systemctl unmask edge.service", false},
		{"UnitFileState=enabled-runtime", "enabled", "systemctl enable edge.service", false},
		{"UnitFileState=static", "", "", false},
		{"Restart=no", "Restart=", "Restart=always", true},
		{"Restart=on-failure", "Restart=", "Restart=always", true},
		{"KillMode=control-group\nSendSIGKILL=yes", "", "", false},
		{"KillMode=mixed", "", "", false},
		{"KillMode=process", "KillMode=", "set KillMode=control-group in [Service]", true},
		{"KillMode=none", "KillMode=", "set KillMode=control-group in [Service]", true},
		{"SendSIGKILL=no", "KillMode=", "set SendSIGKILL=yes in [Service]", true},
		{"Restart=on-success", "Restart=", "Restart=always", true},
		{"RestartPreventExitStatus=0 TERM", "Restart=", "remove RestartPreventExitStatus=", true},
		{"RemainAfterExit=yes", "Restart=", "RemainAfterExit=no", true},
		{"RestartUSec=infinity", "Restart=", "RestartSec=0.1", true},
		{"RestartUSec=1h", "Restart=", "RestartSec=0.1", true},
		{"RestartUSec=10min", "", "", false},
		{"RestartUSec=1s\nRestartSteps=5\nRestartMaxDelayUSec=1d", "Restart=", "RestartSteps=0", true},
		{"RestartUSec=1s\nRestartSteps=0\nRestartMaxDelayUSec=1d", "", "", false},
		{"LimitFSIZE=infinity\nLimitFSIZESoft=infinity", "", "", false},
		{"LimitFSIZE=1048576\nLimitFSIZESoft=1048576", "LimitFSIZE=", "LimitFSIZE=infinity", true},
		{"LimitFSIZE=infinity\nLimitFSIZESoft=1048576", "LimitFSIZE=", "LimitFSIZE=infinity", true},
		{"StartLimitIntervalUSec=10s", "start limits", "StartLimitIntervalSec=0 in [Unit]", true},
		{"StartLimitIntervalUSec=10s\nStartLimitBurst=0", "", "", false},
		{"ExecStartPre=", "watchdog", "write the unit again: edge-agent unit", true},
		{pre("path=/bin/true ; argv[]=/bin/true ; ignore_errors=yes"), "watchdog", "write the unit again", true},
		{pre("path=/bin/true ; argv[]=/bin/true watchdog --root ROOT ; ignore_errors=yes"), "watchdog", "write the unit again", true},
		{pre("path=ROOT/last-good/edge-agent ; argv[]=ROOT/last-good/edge-agent rescue --root ROOT ; ignore_errors=yes"), "watchdog", "write the unit again", true},
		{pre("path=ROOT/last-good/edge-agent ; argv[]=ROOT/last-good/edge-agent watchdog --root ROOTx ; ignore_errors=yes"), "watchdog", "write the unit again", true},
		{pre("path=ROOT/last-good/edge-agent ; argv[]=ROOT/last-good/edge-agent watchdog ; ignore_errors=yes"), "watchdog", "write the unit again", true},
		{pre("path=ROOT/current/edge-agent ; argv[]=ROOT/current/edge-agent watchdog --root ROOT ; ignore_errors=yes"), "watchdog", "write the unit again", true},
		{pre("path=ROOT/versions/1.0.0/edge-agent ; argv[]=e watchdog --root ROOT ; ignore_errors=yes"), "watchdog", "write the unit again", true},
		{pre(strings.Replace(watchdog, "errors=yes", "errors=no", 1)), "watchdog", `put a "-" before its path`, true},
		{pre("path=/bin/prepare ; argv[]=/bin/prepare ; ignore_errors=no") + "\n" + pre(watchdog), "watchdog", "put the watchdog first", true},
		{pre("path=/bin/prepare ; argv[]=/bin/prepare ; ignore_errors=yes") + "\n" + pre(watchdog), "", "", false},
		{pre(strings.Replace(watchdog, "--root ROOT", "--root="+link, 1)), "", "", false},
		{pre("path=/bin/sh ; argv[]=/bin/sh -c ROOT/last-good/edge-agent watchdog --root ROOT ; ignore_errors=yes"), "watchdog", "write the unit again", true},
		{"ExecStart=", "ExecStart=", "write the unit again", true},
		{start("ROOT/versions/1.0.0/edge-agent", " run"), "ExecStart=", "write the unit again", true},
		{start("ROOT/last-good/edge-agent", " run"), "ExecStart=", "write the unit again", true},
		{start("/usr/local/bin/edge-agent", " run --config ROOT/config.toml"), "ExecStart=", "write the unit again", true},
		{start("/usr/bin/env", " A=b ROOT/current/edge-agent run"), "ExecStart=", "write the unit again", true},
		{start("/bin/sh", ` -c "ROOT/current/edge-agent run"`), "ExecStart=", "write the unit again", true},
		{start("ROOT/current/other", " run"), "ExecStart=", "write the unit again", true},
		{start("ROOTx/current/edge-agent", " run"), "ExecStart=", "write the unit again", true},
		{start("ROOT/current/edge-agent", " run") + "\n" + start("/bin/true", ""), "ExecStart=", "write the unit again", true},
		{start(link+"/current/edge-agent", " run"), "", "", false},
		{"EnvironmentFiles=" + root + "/current/env (ignore_errors=no)", "paths in current", `EnvironmentFile=`, true},
		{"EnvironmentFiles=" + root + "/current/env (ignore_errors=yes)", "", "", false},
		{"WorkingDirectory=" + root + "/current/share", "paths in current", "WorkingDirectory=", true},
		{"ReadWritePaths=" + root + " " + root + "/versions/1.0.0/data", "paths in current", "ReadWritePaths=", true},
		{"ReadWritePaths=" + root + " -" + root + "/current/data", "", "", false},
		{"Type=simple", "Type=", "Type=notify", true},
		{"Type=exec", "Type=", "Type=notify", true},
		{"Type=notify-reload", "", "", false},
		{"NotifyAccess=none", "Type=", "NotifyAccess=main", true},
		{"NotifyAccess=all", "", "", false},
		{"User=" + other, "User=", "chown -R " + other + ": " + root, true},
		{"User=65533", "User=", "chown -R 65533: " + root, true},
		{"User=no-such-user", "User=", "useradd", true},
		{fmt.Sprintf("User=%d", os.Geteuid()), "", "", false},
		{"DynamicUser=yes", "User=", "DynamicUser=no", true},
		{"TimeoutStartUSec=1min 59s", "TimeoutStartSec=", "TimeoutStartSec=120", true},
		{"TimeoutStartUSec=infinity", "", "", false},
		{"TimeoutStartUSec=1h 5ms", "", "", false},
		{"TimeoutStopUSec=19s", "TimeoutStopSec=", "TimeoutStopSec=25", false},
		{"TimeoutStopUSec=20s", "", "", false},
		{"TimeoutStopUSec=infinity", "", "", false},
		{"WatchdogUSec=0", "WatchdogSec=", "WatchdogSec=30", false},
		{"WatchdogUSec=infinity", "WatchdogSec=", "WatchdogSec=30", false},
		{"WatchdogUSec=500ms", "WatchdogSec=", "WatchdogSec=30", true},
		{"ReadWritePaths=", "ReadWritePaths=", "ReadWritePaths=" + root, true},
		{"ReadWritePaths=/var/lib", "ReadWritePaths=", "ReadWritePaths=" + root, true},
		{"ReadWritePaths=" + root + "x", "ReadWritePaths=", "ReadWritePaths=" + root, true},
		{"ReadWritePaths=-" + link, "", "", false},
		{"ReadWritePaths=" + filepath.Dir(root), "", "", false},
		{"ReadWritePaths=\nProtectSystem=full", "", "", false},
		{"ReadWritePaths=\nProtectSystem=no\nReadOnlyPaths=" + root, "ReadWritePaths=", "ReadWritePaths=" + root, true},
		{"ReadWritePaths=/\nReadOnlyPaths=" + filepath.Dir(root), "ReadWritePaths=", "ReadWritePaths=" + root, true},
		{"NoExecPaths=/\nExecPaths=/usr", "ReadWritePaths=", "ExecPaths=" + root, true},
		{"NoExecPaths=/\nExecPaths=/usr " + root, "", "", false},
		{"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "network", "RestrictAddressFamilies=AF_NETLINK", false},
		{"RestrictAddressFamilies=~AF_INET6", "network", "AF_INET6", false},
		{"RestrictAddressFamilies=~", "", "", false},
		{"PrivateNetwork=yes", "network", "PrivateNetwork=no", false},
	} {
		t.Run(tt.lines, func(t *testing.T) {
			t.Parallel()
			s := Service{Unit: "edge.service", Layout: at(t, link), Binary: "edge-agent", Window: 2 * time.Minute, Drain: 10 * time.Second}
			r := s.report(linked, properties(replaceLines(good, tt.lines)), "")
			var found []string
			for _, p := range r.Problems {
				found = append(found, p.Check)
				if !strings.Contains(strings.ReplaceAll(p.Remedy, link, root), tt.remedy) || p.Rollback != tt.rollback || p.Cause == "" || !slices.Contains(r.Checks, p.Check) {
					t.Errorf("%+v, want the remedy %q, rollback %v", p, tt.remedy, tt.rollback)
				}
			}
			var want []string
			if tt.check != "" {
				want = []string{tt.check}
			}
			if diff := cmp.Diff(want, found); diff != "" {
				t.Error(diff)
			}
			if err := r.Rollback(); (err != nil) != tt.rollback {
				t.Errorf("Rollback: %v", err)
			}
		})
	}
}

// replaceLines replaces the lines of text whose settings lines has.
func replaceLines(text, lines string) string {
	var out strings.Builder
	keys := map[string]bool{}
	for line := range strings.Lines(lines) {
		k, _, _ := strings.Cut(line, "=")
		keys[k] = true
	}
	for line := range strings.Lines(text) {
		if k, _, _ := strings.Cut(line, "="); !keys[k] {
			out.WriteString(line)
		}
	}
	return out.String() + lines + "\n"
}

// shownAttached has the properties of an attached service without a fault.
func shownAttached(root, agent string) string {
	return strings.NewReplacer("ROOT", root, "AGENT", agent).Replace(`LoadState=loaded
UnitFileState=enabled
Restart=always
StartLimitIntervalUSec=0
ExecCondition={ path=AGENT ; argv[]=AGENT watchdog --root ROOT ; ignore_errors=yes ; pid=0 }
ExecConditionEx={ path=AGENT ; argv[]=AGENT watchdog --root ROOT ; flags=privileged ignore-failure ; pid=0 }
ExecStart={ path=ROOT/current/app ; argv[]=ROOT/current/app serve ; ignore_errors=no ; pid=0 }
Type=simple
User=daemon
`)
}

// The faults of an attached service.
func TestInspectAttached(t *testing.T) {
	t.Parallel()
	root, agent := t.TempDir(), "/bin/sh" // which exists
	good := shownAttached(root, agent)
	condition := func(path, args, ignored string) string {
		return fmt.Sprintf("ExecCondition={ path=%s ; argv[]=%[1]s %s ; ignore_errors=%s ; pid=0 }", path, args, ignored)
	}
	for _, tt := range []struct{ lines, check string }{
		{"", ""},
		{"LoadState=not-found", "unit file"},
		{"Restart=on-failure", "Restart="},
		{"StartLimitIntervalUSec=10s\nStartLimitBurst=5", "start limits"},
		{"ExecCondition=", "watchdog"},
		{condition(agent, "watchdog --root "+root+"y", "yes"), "watchdog"},
		{condition(agent, "watchdog --root "+root, "no"), "watchdog"},
		{condition("/bin/true", "watchdog --root "+root, "yes"), "watchdog"},
		{condition(root+"/current/app", "watchdog --root "+root, "yes"), "watchdog"},
		{"ExecStart={ path=/usr/bin/app ; argv[]=/usr/bin/app ; ignore_errors=no }", "ExecStart="},
		{"ExecStart={ path=" + root + "/versions/1.0.0/app ; argv[]=app ; ignore_errors=no }", "ExecStart="},
		{"ExecStart={ path=/bin/sh ; argv[]=/bin/sh " + root + "/current/app ; ignore_errors=no }", ""}, // an interpreter
		{"ExecStart={ path=/bin/sh ; argv[]=/bin/sh " + root + "/versions/1.0.0/app ; ignore_errors=no }", "ExecStart="},
		{"Type=oneshot", "Type="},
		{"WorkingDirectory=" + root + "/current/share", "paths in current"},
	} {
		r := Service{Unit: "app.service", Layout: at(t, root), Attached: true}.report(attached, properties(replaceLines(good, tt.lines)), agent)
		got := ""
		for _, p := range r.Problems {
			got += p.Check
		}
		if got != tt.check || (r.Rollback() != nil) != (tt.check != "") {
			t.Errorf("%q: %v", tt.lines, r.Problems)
		}
	}
	if os.Geteuid() == 0 { // the "+" matters only where another user owns the root
		r := Service{Unit: "app.service", Layout: at(t, root), Attached: true}.report(attached, properties(strings.Replace(good, "flags=privileged ", "flags=", 1)), agent)
		if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Cause, `lacks the "+"`) {
			t.Errorf("without +: %v", r.Problems)
		}
	}
}

// The remedy names the file that sets the wrong value.
func TestRemedyNamesTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fragment, dropIn := filepath.Join(dir, "edge.service"), filepath.Join(dir, "override.conf")
	for path, text := range map[string]string{fragment: "[Service]\nRestart=always\nType=exec\n", dropIn: "[Service]\nRestart = no\nExecStartPre=\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := properties(replaceLines(shownGood(dir, who(t)), "FragmentPath="+fragment+"\nDropInPaths="+dropIn+"\nRestart=no\nType=exec\nExecStartPre="))
	r := Service{Unit: "edge.service", Layout: at(t, dir), Binary: "edge-agent"}.report(linked, p, "")
	want := map[string]string{"Restart=": "remove Restart= from " + dropIn, "Type=": "set Type=notify in [Service] of " + fragment, "watchdog": "remove every ExecStartPre= from " + dropIn}
	for _, problem := range r.Problems {
		if !strings.HasPrefix(problem.Remedy, want[problem.Check]) {
			t.Errorf("%+v, want %q", problem, want[problem.Check])
		}
		delete(want, problem.Check)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{"0": 0, "1min 30s": 90 * time.Second, "100ms": 100 * time.Millisecond, "1.5s": 1500 * time.Millisecond, "2d 1h": 49 * time.Hour} {
		if got, ok := duration(s); !ok || got != want {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"infinity", "", "x", "5", "5 parsecs"} {
		if d, ok := duration(s); ok {
			t.Errorf("%q: %v", s, d)
		}
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 22, 30, 0, 0, time.UTC)
	for _, tt := range []struct {
		show  string
		loop  bool
		ended string
	}{
		{"ActiveState=active\nSubState=running\nResult=success\nNRestarts=9\nActiveEnterTimestamp=Wed 2026-11-25 21:00:00 UTC\n", false, ""},
		{"ActiveState=active\nSubState=running\nResult=success\nNRestarts=9\nActiveEnterTimestamp=Wed 2026-11-25 22:29:55 UTC\n", true, ""},
		{"ActiveState=active\nSubState=running\nResult=success\nNRestarts=1\nActiveEnterTimestamp=Wed 2026-11-25 22:29:55 UTC\n", false, ""},
		{"ActiveState=activating\nSubState=auto-restart\nResult=exit-code\nExecMainCode=1\nExecMainStatus=203\nNRestarts=1\n", true, "203/EXEC"},
		{"ActiveState=activating\nSubState=auto-restart\nResult=success\nNRestarts=1\n", false, ""},
		{"ActiveState=inactive\nSubState=dead\nResult=success\n", false, ""},
		{"ActiveState=failed\nSubState=failed\nResult=signal\nExecMainCode=2\nExecMainStatus=9\n", false, "signal KILL"},
		{"ActiveState=failed\nSubState=failed\nResult=timeout\n", false, "not ready in time"},
		{"ActiveState=failed\nSubState=failed\nResult=watchdog\n", false, "hung"},
		{"ActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainCode=1\nExecMainStatus=3\n", false, "exit code 3"},
		{"ActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainCode=1\nExecMainStatus=217\n", false, "USER"},
		{"ActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainCode=1\nExecMainStatus=200\n", false, "CHDIR"},
	} {
		s := stateOf("e.service", properties(tt.show))
		if s.CrashLoop(now, time.Time{}) != tt.loop || !strings.Contains(s.EndReason(), tt.ended) || (s.EndReason() == "") != (tt.ended == "") {
			t.Errorf("%q: loop %v, ended %q", tt.show, s.CrashLoop(now, time.Time{}), s.EndReason())
		}
		if s.CrashLoop(now, now.Add(-10*time.Second)) && s.Sub == "running" {
			t.Errorf("%q: a restart of an upgrade counts as a crash loop", tt.show)
		}
	}
}

// The cause names a watchdog that a script runs.
func TestWatchdogThroughAWrapper(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, script := range []string{"ROOT/last-good/edge-agent watchdog --root ROOT", "'exec ROOT/last-good/edge-agent watchdog;'", "ROOT/last-good/edge-agent 'watchdog'"} {
		line := strings.ReplaceAll("ExecStartPre={ path=/bin/sh ; argv[]=/bin/sh -c "+script+" ; ignore_errors=yes }", "ROOT", root)
		r := Service{Unit: "edge.service", Layout: at(t, root), Binary: "edge-agent"}.report(linked, properties(replaceLines(shownGood(root, who(t)), line)), "")
		if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Cause, "through a wrapper (/bin/sh)") {
			t.Errorf("%s: %v", script, r.Problems)
		}
	}
}
