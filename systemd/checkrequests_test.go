package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An attached service with one of these settings could keep a bad version, or its old processes.
// The refusal names the setting, its file and the remedy.
func TestRefusedSettings(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, tt := range []struct{ setting, remedy string }{
		{"Type=oneshot", "set Type=exec"},
		{"Restart=no", "set Restart=always"},
		{"Restart=on-failure", "set Restart=always"},
		{"Restart=on-success", "set Restart=always"},
		{"RemainAfterExit=yes", "set RemainAfterExit=no"},
		{"RestartPreventExitStatus=0 SIGTERM", "remove RestartPreventExitStatus="},
		{"KillMode=process", "set KillMode=control-group"},
		{"KillMode=none", "set KillMode=control-group"},
		{"SendSIGKILL=no", "set SendSIGKILL=yes"},
		{"TimeoutStopUSec=infinity", "set TimeoutStopSec=90"},
		{"TimeoutStopUSec=10min", ""},
		{"KillMode=mixed", ""},
		{"KillMode=control-group", ""},
		{"Type=forking", ""},
		{"Type=notify", ""},
	} {
		fragment := filepath.Join(t.TempDir(), "app.service")
		if err := os.WriteFile(fragment, []byte("[Service]\n"+tt.setting+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := properties(replaceLines(shownAttached(root, "/bin/sh"), tt.setting+"\nFragmentPath="+fragment))
		r := Service{Unit: "app.service", Layout: at(t, root), Attached: true}.report(attached, p, "/bin/sh")
		if tt.remedy == "" && r.Problems == nil {
			continue
		}
		if len(r.Problems) != 1 || r.Rollback() == nil || tt.remedy == "" {
			t.Errorf("%s: %+v", tt.setting, r.Problems)
			continue
		}
		if p := r.Problems[0]; !strings.Contains(p.Cause, strings.ReplaceAll(tt.setting, "USec", "Sec")) || !strings.HasPrefix(p.Remedy, tt.remedy) || !strings.Contains(p.Remedy, fragment) {
			t.Errorf("%s: %+v", tt.setting, p)
		}
	}
}

// A condition that each version brings with it refuses upgrades; an operator's own does not.
func TestConditionsOfTheVersion(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	good := shownAttached(root, "/bin/sh")
	_, watchdog, _ := strings.Cut(good, "ExecCondition=")
	watchdog, _, _ = strings.Cut(watchdog, "\n")
	for command, fit := range map[string]bool{
		"path=/usr/bin/test ; argv[]=/usr/bin/test -e /run/mains ; ignore_errors=no":         true,
		"path=ROOT/current/app ; argv[]=ROOT/current/app ready ; ignore_errors=no":           false,
		"path=/bin/sh ; argv[]=/bin/sh -c ROOT/current/app\\x20ready ; ignore_errors=no":     false,
		"path=ROOT/current/app ; argv[]=ROOT/current/app ready ; ignore_errors=yes":          true,
		"path=/bin/sh ; argv[]=/bin/sh -c \"test -x 'ROOT/current/app'\" ; ignore_errors=no": false,
	} {
		line := "ExecCondition={ " + strings.ReplaceAll(command, "ROOT", root) + " ; pid=0 }"
		p := properties(replaceLines(good, "ExecCondition="+watchdog+"\n"+line))
		r := Service{Unit: "app.service", Layout: at(t, root), Attached: true}.report(attached, p, "/bin/sh")
		if fit != (r.Rollback() == nil) || !fit && (len(r.Problems) != 1 || r.Problems[0].Check != "ExecCondition=") {
			t.Errorf("%s: %+v", command, r.Problems)
		}
	}
}

func TestCheckRequests(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	const goodPath = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nPaths=/x/restart (PathChanged)\n"
	goodServe := "LoadState=loaded\nExecStart={ path=/bin/agent ; argv[]=/bin/agent restart --unit app.service --root " + root + " ; ignore_errors=no ; pid=0 }\n"
	const goodAgent = "LoadState=loaded\nWants=app-restart.path other.service\n"
	for _, tt := range []struct {
		path, serve, agent string // lines that differ
		cause, remedy      string
		rollback           bool
	}{
		{"", "", "", "", "", false},
		{"ActiveState=failed", "", "", "app-restart.path is failed", "run: systemctl enable --now app-restart.path", true},
		{"ActiveState=inactive", "", "", "app-restart.path is inactive", "run: systemctl enable --now app-restart.path", true},
		{"LoadState=masked\nActiveState=inactive", "", "", "app-restart.path is masked", "systemctl unmask app-restart.path", true},
		{"LoadState=not-found\nActiveState=inactive", "", "", "app-restart.path is missing", "write the units again: edge-agent unit", true},
		{"", "LoadState=masked", "", "app-restart.service is masked", "systemctl unmask app-restart.service", true},
		{"", "LoadState=not-found", "", "app-restart.service is missing", "write the units again", true},
		{"UnitFileState=disabled", "", "", "does not run after a reboot", "systemctl enable app-restart.path", false},
		{"Paths=/x/restart (PathExists)", "", "", "has PathExists=", "systemctl daemon-reload && systemctl enable app-restart.path && systemctl restart app-restart.path app-agent.service", false},
		{"", "ExecStart={ path=/bin/mv ; argv[]=mv -f /x/restart /x/.restart ; ignore_errors=no ; pid=0 }", "", "does not compare which start", "write the units again", false},
		{"", "ExecStart={ path=/bin/agent ; argv[]=/bin/agent restart --unit app.service --root /other ; ignore_errors=no ; pid=0 }", "", "does not compare", "write the units again", false},
		{"", "", "Wants=other.service", "does not have Wants=app-restart.path", "write the units again", false},
		{"", "", "LoadState=not-found\nWants=", "", "", false}, // the agent runs in another unit
	} {
		u := unit{Service: Service{Unit: "app.service", Layout: at(t, root), Attached: true}, kind: attached, p: map[string]string{}, real: resolve(root)}
		of := func(good, lines string) map[string]string { return properties(replaceLines(good, lines)) }
		r := u.checkRequests(of(goodPath, tt.path), of(goodServe, tt.serve), of(goodAgent, tt.agent))
		var cause, remedy string
		for _, p := range r.Problems {
			cause, remedy = cause+p.Cause, remedy+p.Remedy
		}
		if (cause == "") != (tt.cause == "") || !strings.Contains(cause, tt.cause) || !strings.Contains(remedy, tt.remedy) || (r.Rollback() != nil) != tt.rollback {
			t.Errorf("%+v: %+v", tt, r.Problems)
		}
	}
}
