package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A process of another version counts if it is in the control group of the service and
// this start did not begin it. This process is 100, in session 100.
func TestProcessesOfOtherVersions(t *testing.T) {
	t.Parallel()
	const unified = "0::/system.slice/edge.service\n"
	const old = "versions/1.0.0/edge"
	for name, tt := range map[string]struct {
		cgroup string // of this process
		at     string // directory of the group, below /sys/fs/cgroup
		exe    string
		stat   string // from the state of the process on; "": there is none
		found  bool
	}{
		"an old worker":                        {unified, "system.slice/edge.service", old, "S 1 50 50", true},
		"removed meanwhile":                    {unified, "system.slice/edge.service", old + " (deleted)", "S 1 50 50", true},
		"its directory was set aside":          {unified, "system.slice/edge.service", "versions/.removed-1.0.0/edge (deleted)", "S 1 50 50", true},
		"of the same version":                  {unified, "system.slice/edge.service", "versions/1.1.0/edge", "S 1 50 50", false},
		"of a longer name":                     {unified, "system.slice/edge.service", "versions/1.1.0-rc1/edge", "S 1 50 50", true},
		"of no version":                        {unified, "system.slice/edge.service", "bin/edge", "S 1 50 50", false},
		"of another root":                      {unified, "system.slice/edge.service", "other/" + old, "S 1 50 50", false},
		"a zombie":                             {unified, "system.slice/edge.service", "", "Z 1 50 50", false},
		"another user's":                       {unified, "system.slice/edge.service", "", "S 1 50 50", false},
		"gone":                                 {unified, "system.slice/edge.service", "", "", false},
		"killed, and waits for a disk":         {unified, "system.slice/edge.service", old, "D 1 50 50 256", false},
		"stopped":                              {unified, "system.slice/edge.service", old, "T 1 50 50", true},
		"a child":                              {unified, "system.slice/edge.service", old, "S 100 200 200", false},
		"a grandchild":                         {unified, "system.slice/edge.service", old, "S 101 200 200", false},
		"a grandchild that lost its parent":    {unified, "system.slice/edge.service", old, "S 1 101 100", false},
		"the child of an old worker":           {unified, "system.slice/edge.service", old, "S 103 50 50", true},
		"in a group below":                     {unified, "system.slice/edge.service/workers/a", old, "S 1 50 50", true},
		"this process is in a group below":     {"0::/system.slice/edge.service/agent\n", "system.slice/edge.service/workers", old, "S 1 50 50", true},
		"in another service":                   {unified, "system.slice/edgy.service", old, "S 1 50 50", false},
		"hybrid":                               {"1:name=systemd:/system.slice/edge.service\n" + unified, "unified/system.slice/edge.service", old, "S 1 50 50", true},
		"version 1":                            {"5:memory:/\n1:name=systemd:/system.slice/edge.service\n", "systemd/system.slice/edge.service", old, "S 1 50 50", true},
		"a service of a login":                 {"0::/user.slice/user-1.slice/user@1.service/app.slice/edge.service\n", "user.slice/user-1.slice/user@1.service/app.slice/edge.service", old, "S 1 50 50", true},
		"a shell":                              {"0::/user.slice/user-1.slice/session-1.scope\n", "user.slice/user-1.slice/session-1.scope", old, "S 1 50 50", false},
		"a shell that a login's service began": {"0::/user.slice/user@1.service/app.slice/x.scope\n", "user.slice/user@1.service/app.slice/x.scope", old, "S 1 50 50", false},
		"a container":                          {"0::/\n", "", old, "S 1 50 50", false},
		"outside of its name space":            {"0::/../..\n", "", old, "S 1 50 50", false},
	} {
		root := t.TempDir()
		file := func(path, text string) {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		stat := func(pid int, text string) {
			fields := strings.Fields(text)
			signal := "0"
			if len(fields) == 5 {
				signal, fields = fields[4], fields[:4]
			}
			file(fmt.Sprintf("proc/%d/stat", pid), fmt.Sprintf("%d (a ) S 100 b) %s%s %s 0\n", pid, strings.Join(fields, " "), strings.Repeat(" 0", 24), signal))
		}
		file("proc/self/cgroup", tt.cgroup)
		stat(100, "S 1 100 100")
		stat(101, "S 100 101 101")
		stat(103, "S 1 50 50")
		group, _, _ := strings.Cut(tt.at, "/workers")
		file(filepath.Join("cgroup", group, "cgroup.procs"), "100\n")
		file(filepath.Join("cgroup", tt.at, "cgroup.procs"), "100\n555\n")
		if tt.stat != "" {
			stat(555, tt.stat)
			if tt.exe != "" {
				if err := os.Symlink(filepath.Join(root, tt.exe), filepath.Join(root, "proc/555/exe")); err != nil {
					t.Fatal(err)
				}
			}
		}
		m := machine{proc: filepath.Join(root, "proc"), cgroups: filepath.Join(root, "cgroup"), self: 100}
		version, pid := m.otherVersion(filepath.Join(root, "versions"), "1.1.0")
		if (pid == 555) != tt.found || tt.found && version == "" {
			t.Errorf("%s: %q, pid %d, want found %t", name, version, pid, tt.found)
		}
	}
}
