package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every path below current that systemd opens must be in the new version, in the form
// that the setting needs. A setting marked optional needs nothing.
func TestFitVersion(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	full, bare := filepath.Join(root, "versions/1.0.0"), filepath.Join(root, "versions/1.1.0")
	for _, dir := range []string{full + "/share/empty", full + "/bin", bare + "/bin", bare + "/a b"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]os.FileMode{full + "/share/env": 0o644, full + "/bin/tool": 0o755, bare + "/bin/tool": 0o644, bare + "/a b/en v": 0o644, full + "/app.py": 0o644} {
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"current": "versions/1.0.0", "share-link": "versions", "last-good": "versions/1.0.0"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	command := func(key, argv, ignored string) string {
		path, _, _ := strings.Cut(argv, " ")
		return key + "={ path=" + path + " ; argv[]=" + argv + " ; ignore_errors=" + ignored + " ; pid=0 }"
	}
	for _, tt := range []struct{ text, properties, lacks string }{
		{"[Service]\nWorkingDirectory=CURRENT/share", "", "WorkingDirectory="},
		{"[Service]\nWorkingDirectory=-CURRENT/share", "", ""},
		{"", "WorkingDirectory=!CURRENT/share", ""}, // as systemctl shows the one before
		{"", "WorkingDirectory=CURRENT/share", "WorkingDirectory="},
		{"[Service]\nWorkingDirectory=CURRENT", "", ""},
		{"[Service]\nEnvironmentFile=CURRENT/share/env", "", "EnvironmentFile="},
		{"[Service]\nEnvironmentFile=CURRENT/share/*", "", "EnvironmentFile="},
		{"[Service]\nEnvironmentFile=-CURRENT/share/env", "", ""},
		{"", "EnvironmentFiles=CURRENT/share/env (ignore_errors=no)", "EnvironmentFile="},
		{"", "EnvironmentFiles=CURRENT/share/env (ignore_errors=yes)", ""},
		{"[Service]\nEnvironmentFile=ROOT/%N/share/env\nEnvironmentFile=ROOT/%p/share/none", "", ""}, // the unit is not called current
		{"[Service]\nLoadCredential=key:CURRENT/share/env", "", "LoadCredential="},
		{"[Service]\nRootDirectory=CURRENT/share", "", "RootDirectory="},
		{"[Service]\nBindReadOnlyPaths=/usr CURRENT/share:/srv", "", "BindReadOnlyPaths="},
		{"[Service]\nBindPaths=/srv:CURRENT/share/new", "", ""}, // systemd creates it
		{"[Service]\nReadWritePaths=CURRENT/share", "", "ReadWritePaths="},
		{"[Service]\nReadWritePaths=-CURRENT/share", "", ""},
		{"[Service]\nStandardInput=file:CURRENT/share/env", "", "StandardInput="},
		{"[Service]\nStandardOutput=append:CURRENT/log", "", ""},
		{"[Service]\nStandardOutput=append:CURRENT/share/log", "", "StandardOutput="},
		{"[Service]\nOpenFile=CURRENT/share/env:env", "", "OpenFile="},
		{"[Service]\nOpenFile=CURRENT/share/env:env:graceful", "", ""},
		{"[Unit]\nConditionPathExists=CURRENT/share", "", "ConditionPathExists="},
		{"[Unit]\nConditionPathExists=!CURRENT/bin", "", "ConditionPathExists="},
		{"[Unit]\nConditionPathExists=!CURRENT/share", "", ""},
		{"[Unit]\nConditionPathExistsGlob=CURRENT/share/*", "", "ConditionPathExistsGlob="},
		{"[Unit]\nConditionDirectoryNotEmpty=CURRENT/share", "", "ConditionDirectoryNotEmpty="},
		{"[Unit]\nConditionFileIsExecutable=CURRENT/bin/tool", "", "ConditionFileIsExecutable="},
		{"[Unit]\nConditionFileNotEmpty=CURRENT/bin/tool", "", ""},
		{"[Unit]\nConditionPathIsSymbolicLink=CURRENT/bin/tool", "", "ConditionPathIsSymbolicLink="},
		{"[Unit]\nConditionPathExists=|CURRENT/share\nConditionPathExists=|CURRENT/bin", "", ""},
		{"[Unit]\nConditionPathExists=|CURRENT/share\nConditionPathExists=|CURRENT/none", "", "ConditionPathExists="},
		{"[Unit]\nConditionPathExists=|CURRENT/share\nConditionVirtualization=|vm", "", ""},
		{"[Unit]\nAssertPathIsDirectory=CURRENT/share", "", "AssertPathIsDirectory="},
		{"[Unit]\nConditionPathExists=ROOT/last-good/share", "", "ConditionPathExists="}, // it moves as well
		// What systemd reports, with specifiers replaced, or from a file that only root can read.
		{"[Service]\nLoadCredential=key:%S/edge/current/share/env", `LoadCredential={"data":[["key","CURRENT/share/env"]]}`, "LoadCredential="},
		{"", "BindReadOnlyPaths=CURRENT/share:/srv:rbind", "BindReadOnlyPaths="},
		{"", "BindReadOnlyPaths=-CURRENT/share:/srv:rbind", ""},
		{"", "ReadOnlyPaths=-CURRENT/share", ""},
		{"", "RootHashSignaturePath=CURRENT/share/sig", "RootHashSignature="},
		{"", `Conditions={"data":[["ConditionPathExists",false,false,"CURRENT/share",0]]}`, "ConditionPathExists="},
		{"", `Conditions={"data":[["ConditionPathExists",false,true,"CURRENT/share",-1]]}`, ""},
		{"", `Asserts={"data":[["AssertPathIsDirectory",false,false,"CURRENT/share",0]]}`, "AssertPathIsDirectory="},
		{"", `Conditions={"data":[["ConditionPathExists",true,false,"CURRENT/share",0],["ConditionVirtualization",true,false,"vm",0]]}`, ""},
		{"", `Conditions={"data":[["ConditionPathExists",true,false,"CURRENT/share",0]]}`, "ConditionPathExists="},
		{"[Unit]\nConditionPathExists=CURRENT/share", `Conditions={"data":[]}`, ""}, // a later file cancels it
		// Paths with spaces.
		{"[Service]\nWorkingDirectory=CURRENT/bin/my share", "", "my share"},
		{"[Service]\nWorkingDirectory=CURRENT/a b", "WorkingDirectory=CURRENT/a b", ""},
		{"[Service]\nEnvironmentFile=CURRENT/a b/en v", "EnvironmentFiles=CURRENT/a b/en v (ignore_errors=no)", ""},
		{`[Service]` + "\n" + `BindReadOnlyPaths=/usr "CURRENT/a b:/srv"`, "BindReadOnlyPaths=/usr:/usr:rbind CURRENT/a b:/srv:rbind", ""},
		{`[Service]` + "\n" + `ReadOnlyPaths='CURRENT/c d'`, "", "c d"},
		{"[Unit]\nConditionPathExists=CURRENT/a b", "", ""},
		{"[Service]\nEnvironment=A=CURRENT/share", "", ""},
		{"", command("ExecStart", "CURRENT/bin/tool run", "no"), "ExecStart="},
		{"", command("ExecStart", "/usr/bin/python3 CURRENT/app.py --data=/srv", "no"), "ExecStart="},
		{"", command("ExecStart", "/usr/bin/python3 CURRENT/none.py", "no"), ""}, // the running version lacks it, too
		{"", command("ExecStartPre", "CURRENT/share/prepare", "no"), "ExecStartPre="},
		{"", command("ExecStartPre", "CURRENT/share/prepare", "yes"), ""},
		{"", command("ExecStartPost", "/bin/sh -c 'cat CURRENT/share/env'", "no"), "ExecStartPost="},
		{"", command("ExecStop", "CURRENT/bin/stop", "no"), "ExecStop="},
		{"", command("ExecStop", "/bin/rm CURRENT/share/env", "no"), ""},
	} {
		fill := strings.NewReplacer("CURRENT", root+"/current", "ROOT", root).Replace
		file := filepath.Join(t.TempDir(), "edge.service")
		if err := os.WriteFile(file, []byte(fill(tt.text)), 0o644); err != nil {
			t.Fatal(err)
		}
		p := properties("FragmentPath=" + file + "\n" + fill(tt.properties))
		err := Service{Unit: "edge.service", Layout: at(t, root)}.fitVersion(p, bare)
		if (err == nil) != (tt.lacks == "") || err != nil && (!strings.Contains(err.Error(), tt.lacks) || !strings.Contains(err.Error(), "1.1.0 does not")) {
			t.Errorf("%q %q: %v, want %q", tt.text, tt.properties, err, tt.lacks)
		}
	}
}

// With a watchdog in a unit of its own, a path below current is accepted if the running
// version has it. Without one, no such path is.
func TestPathsInCurrentWithAGuard(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.MkdirAll(root+"/versions/1.0.0/share", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"current", "last-good"} {
		if err := os.Symlink("versions/1.0.0", filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	guarded := guardedBy(root, "edge.service")
	for _, tt := range []struct{ key, path, guard, want string }{
		{"WorkingDirectory", "/current/share", guarded, ""},
		{"WorkingDirectory", "/current/none", guarded, "1.0.0 does not have it, so it could not be started again"},
		{"WorkingDirectory", "/versions/1.0.0/share", guarded, "that version can be removed at any time"},
		{"WorkingDirectory", "/current/share", "", "its starts would not be counted"},
		{"WorkingDirectory", "/current/share", guardedBy(root, "other.service"), "its starts would not be counted"},
	} {
		lines := tt.key + "=" + root + tt.path + tt.guard
		r := Service{Unit: "edge.service", Layout: at(t, root), Binary: "edge-agent"}.report(linked, properties(replaceLines(shownGood(root, who(t)), lines)), "")
		got := ""
		for _, p := range r.Problems {
			if p.Rollback {
				got += p.Cause
			}
		}
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

// guardedBy returns the properties of a watchdog's own unit before service.
func guardedBy(root, service string) string {
	return strings.NewReplacer("ROOT", root, "SERVICE", service).Replace(`
Wants=edge-watchdog.service
After=basic.target edge-watchdog.service
watchdog unit LoadState=loaded
watchdog unit Wants=edge-retry.service
watchdog unit ExecStart={ path=ROOT/last-good/edge-agent ; argv[]=ROOT/last-good/edge-agent watchdog --before SERVICE --root ROOT ; ignore_errors=yes ; pid=0 }
retry unit LoadState=loaded`)
}

// The doctor names the unit that is missing, and how to get it. That is no reason to refuse
// upgrades: nodes of earlier versions have none.
func TestCheckGuard(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for lines, want := range map[string]string{
		"":                                    "",
		"\nwatchdog unit LoadState=not-found": "there is no edge-watchdog.service",
		"\nwatchdog unit LoadState=masked":    "edge-watchdog.service is masked",
		"\nWants=":                            "edge.service does not have Wants=edge-watchdog.service",
		"\nAfter=network.target":              "After=edge-watchdog.service",
		"\nwatchdog unit Wants=":              "does not start edge-retry.service",
		"\nDefaultDependencies=no":            "which starts later",
		"\nDefaultDependencies=no\nAfter=x":   "",
		"\nretry unit LoadState=not-found":    "does not start edge-retry.service",
		"\nwatchdog unit ExecStart=":          "does not run the watchdog",
		"\nwatchdog unit ExecStart={ path=/bin/true ; argv[]=/bin/true watchdog --before edge.service --root " + root + " ; ignore_errors=yes }": "does not run the watchdog",
	} {
		p := properties(replaceLines(replaceLines(shownGood(root, who(t)), guardedBy(root, "edge.service")), lines))
		r := Service{Unit: "edge.service", Layout: at(t, root), Binary: "edge-agent"}.report(linked, p, "")
		var got []string
		for _, problem := range r.Problems {
			got = append(got, problem.Check+" "+problem.Cause+" "+problem.Remedy)
		}
		text := strings.Join(got, "\n")
		remedy := strings.Contains(text, "edge-agent unit --config") && strings.Contains(text, "daemon-reload") || strings.Contains(text, "systemctl unmask")
		if (text == "") != (want == "") || !strings.Contains(text, want) || text != "" && (len(got) != 1 || !strings.HasPrefix(text, "edge-watchdog.service ") || !remedy) || r.Rollback() != nil {
			t.Errorf("%q: %s", lines, text)
		}
	}
}
