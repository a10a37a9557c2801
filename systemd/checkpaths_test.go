package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The text of the unit shows every setting that needs a file of a version before the
// watchdog runs.
func TestPathsInVersions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/data/1.0.0", 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{dir + "/link": root, root + "/versions": dir + "/data", root + "/current": "versions/1.0.0"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	for i, tt := range []struct{ text, dropIn, want string }{
		{"[Unit]\nConditionPathExists=ROOT/current/x", "", "remove ConditionPathExists= from FILE"},
		{"[Unit]\nConditionFileIsExecutable=|ROOT/current/x", "", "remove ConditionFileIsExecutable= from FILE"},
		{"[Unit]\nAssertPathIsDirectory=ROOT/last-good/x", "", "AssertPathIsDirectory="},
		{"[Unit]\nConditionPathExists=!ROOT/current/x", "", ""},
		{"[Unit]\nConditionPathExists=ROOT/config.toml", "", ""},
		{"[Unit]\nConditionPathExists=ROOT/current/x", "[Unit]\nConditionUser=", ""},
		{"[Unit]\nConditionPathExists=ROOT/current/x", "[Unit]\nAssertUser=", "ConditionPathExists="},
		{"[Service]\nBindPaths=/srv:/mnt ROOT/current/data:/data", "", `put a "-" before the path in BindPaths= of FILE`},
		{"[Service]\nBindReadOnlyPaths=-ROOT/current/data:/data", "", ""},
		{"[Service]\nBindReadOnlyPaths=ROOT/versions/1.0.0/data", "", "BindReadOnlyPaths="},
		{"[Service]\nLoadCredential=key:ROOT/current/key", "", "LoadCredential="},
		{"[Service]\nExecCondition=ROOT/current/check", "", `"-" before the path in ExecCondition=`},
		{"[Service]\nExecCondition=/bin/sh -c 'test -f ROOT/current/x'", "", "ExecCondition="},
		{"[Service]\nExecCondition=+-/bin/sh -c 'test -f ROOT/current/x'", "", ""},
		{"[Service]\nStandardOutput=append:ROOT/current/log", "", "StandardOutput="},
		{"[Service]\nStandardError=file:ROOT/previous/log", "", "StandardError="},
		{"[Service]\nStandardInput=file:ROOT/current/in", "[Service]\nStandardInput=null", ""},
		{"[Service]\nRootImage=ROOT/current/image", "", "RootImage="},
		{"[Service]\nWorkingDirectory=LINK/current", "", "WorkingDirectory="},
		{"[Service]\nWorkingDirectory=-ROOT/current", "", ""},
		{"[Service]\nWorkingDirectory=ROOT/current", "[Service]\nWorkingDirectory=", ""},
		{"[Service]\nWorkingDirectory=/", "[Service]\nWorkingDirectory=DIR/data/1.0.0", "WorkingDirectory= of DROPIN"},
		{"[Service]\nEnvironmentFile=/etc/a\nEnvironmentFile=\\\n# a comment\n  \"ROOT/current/env\"", "", "EnvironmentFile= of FILE"},
		{"[Service]\n#EnvironmentFile=ROOT/current/env\n; WorkingDirectory=ROOT/current", "", ""},
		{"[Service]\nEnvironmentFile=ROOT/current/env", "[Service]\nEnvironmentFile=\nEnvironmentFile=-ROOT/current/env", ""},
		{"[Service]\nOpenFile=ROOT/current/f:f", "", "OpenFile="},
		{"[Service]\nOpenFile=ROOT/current/f:f:graceful", "", ""},
		{"[Service]\nReadWritePaths=ROOT ROOT/versions", "", ""},
		{"[Service]\nEnvironment=A=ROOT/current/x PATH=ROOT/current:/bin\nExecStart=ROOT/current/edge-agent\nExecStartPre=ROOT/current/prepare\nExecStopPost=ROOT/current/stop", "", ""},
		{"[Unit]\nDescription=ROOT/current/x\nDocumentation=file:ROOT/current/doc\n[Install]\nAlias=ROOT/current/x\n[X-A]\nB=ROOT/current/x", "", ""},
	} {
		fill := func(s string) string {
			return strings.NewReplacer("ROOT", root, "LINK", dir+"/link", "DIR", dir).Replace(s)
		}
		unitDir := t.TempDir()
		file, dropIn := unitDir+"/edge.service", unitDir+"/override.conf"
		for path, text := range map[string]string{file: tt.text, dropIn: tt.dropIn} {
			if err := os.WriteFile(path, []byte(fill(text)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		u := unit{Service: Service{Unit: "edge.service", Layout: at(t, root)}, kind: linked, real: resolve(root), p: map[string]string{"FragmentPath": file, "DropInPaths": dropIn}}
		problems := u.checkPaths()
		if tt.want == "" && len(problems) == 0 {
			continue
		}
		want := strings.NewReplacer("FILE", file, "DROPIN", dropIn).Replace(tt.want)
		if len(problems) != 1 || tt.want == "" || !problems[0].Rollback || !strings.Contains(problems[0].Remedy, want) {
			t.Errorf("%d %q: %+v, want %q", i, tt.text, problems, want)
		}
	}
}
