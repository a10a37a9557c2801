package install

import (
	"os"
	"path/filepath"
	"testing"
)

// The units name a link that stays, and not the directory of one version of edge-agent that
// its package removes with the next update.
func TestTheNameOfTheAgent(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only a link of root counts")
	}
	dir := t.TempDir()
	join := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	real, other := join("lib/edge-agent-1.0.0/edge-agent"), join("lib/edge-agent-0.9.0/edge-agent")
	for _, path := range []string{real, other} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "other", "open", "theirs", "renamed", "empty", "group", "home"} {
		if err := os.Mkdir(join(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		join("bin/edge-agent"): real, join("other/edge-agent"): other, join("open/edge-agent"): real, join("theirs/edge-agent"): real,
		join("renamed/agent"): real, join("lib/present"): "edge-agent-1.0.0",
		join("group/edge-agent"): real, join("home/edge-agent"): real, join("renamed/by-home"): "../home/edge-agent", join("home/lib"): join("lib"),
		join("renamed/two"): "edge-agent", join("renamed/edge-agent"): "../bin/edge-agent",
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(join("open"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(join("theirs/edge-agent"), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chown(join("home"), 12345, 12345), os.Chown(join("group"), 0, 12345), os.Chmod(join("group"), 0o775)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct{ called, dir, want string }{
		"called by a link":              {join("bin/edge-agent"), "empty", join("bin/edge-agent")},
		"called by a link of its own":   {join("renamed/agent"), "empty", join("renamed/agent")},
		"below a link to a directory":   {join("lib/present/edge-agent"), "empty", join("lib/present/edge-agent")},
		"called by its real path":       {real, "bin", join("bin/edge-agent")},
		"there is no link":              {real, "empty", real},
		"the link is another version":   {real, "other", real},
		"anybody can move the link":     {join("open/edge-agent"), "empty", real},
		"another user owns the link":    {join("theirs/edge-agent"), "empty", real},
		"a group can move the link":     {join("group/edge-agent"), "empty", real},
		"a user can move the next link": {join("renamed/by-home"), "empty", real},
		"a user can move a directory":   {join("home/lib/present/edge-agent"), "empty", real},
		"links to links of root":        {join("renamed/two"), "empty", join("renamed/two")},
		"it is not found as it was":     {"nowhere", "bin", join("bin/edge-agent")},
		"it is not found at all":        {"nowhere", "empty", real},
		"the program itself is in PATH": {real, filepath.Join("lib", "edge-agent-1.0.0"), real},
	} {
		if got := stableName(real, tt.called, []string{join(tt.dir)}); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	for path, want := range map[string]bool{
		real: true, "/opt/edge-agent-1.2/edge-agent": true, "/snap/edge-agent/42/bin/edge-agent": true, "/opt/edge-agent-2/bin/edge-agent": true, "/opt/v3/edge-agent": true,
		"/srv/releases/20261101/edge-agent": true, "/nix/store/0c5b-edge-agent/bin/edge-agent": true,
		"/usr/local/bin/edge-agent": false, "/usr/lib64/edge-agent": false, "/opt/edge2/edge-agent": false, "/opt/x86_64/edge-agent-1.2": false,
	} {
		if got := AgentNote(path) != ""; got != want {
			t.Errorf("%s: noted is %v", path, got)
		}
	}
}
