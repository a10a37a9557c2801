package fsutil_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/box"
)

// An interpreter closes the script that it has read: only its arguments name it, through
// whatever link, and whoever's process it is. Other arguments are no use.
func TestInUseSeesScripts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args func(dir string) []string
		cwd  string // below the directory above the version's
		uid  uint32
		used bool
	}{
		"its path":                {args: func(dir string) []string { return []string{filepath.Join(dir, "worker")} }, used: true},
		"of another user":         {args: func(dir string) []string { return []string{filepath.Join(dir, "worker")} }, uid: 65534, used: true},
		"relative":                {args: func(string) []string { return []string{"1.0.0/worker"} }, cwd: ".", used: true},
		"relative, from the side": {args: func(string) []string { return []string{"-x", "../1.0.0/worker"} }, cwd: "side", used: true},
		"through current": {args: func(dir string) []string {
			return []string{filepath.Join(filepath.Dir(dir), "current", "worker")}
		}, used: true},
		"a file that is gone":     {args: func(dir string) []string { return []string{filepath.Join(dir, "gone")} }},
		"of another version":      {args: func(dir string) []string { return []string{filepath.Join(filepath.Dir(dir), "1.0.0-rc.1", "worker")} }},
		"relative, elsewhere":     {args: func(string) []string { return []string{"worker"} }, cwd: "side"},
		"the path within another": {args: func(dir string) []string { return []string{"see " + filepath.Join(dir, "worker")} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.uid != 0 {
				box.NeedRoot(t)
			}
			dir, _, _ := program(t)
			top := filepath.Dir(dir)
			if err := errors.Join(os.Mkdir(filepath.Join(top, "side"), 0o755), os.Mkdir(filepath.Join(top, "1.0.0-rc.1"), 0o755), os.Symlink("1.0.0", filepath.Join(top, "current")),
				os.WriteFile(filepath.Join(top, "1.0.0-rc.1", "worker"), nil, 0o644), os.WriteFile(filepath.Join(dir, "worker"), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
			// The shell does not open $0, as an interpreter that has read it.
			cmd := exec.Command("sh", append([]string{"-c", "read line"}, tt.args(dir)...)...)
			cmd.Dir = "/"
			if tt.cwd != "" {
				cmd.Dir = filepath.Join(top, tt.cwd)
			}
			if tt.uid != 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
			}
			if _, err := cmd.StdinPipe(); err != nil {
				t.Fatal(err)
			}
			started(t, cmd)
			by, err := fsutil.InUse(t.Context(), dir)
			if err != nil || (by != "") != tt.used || tt.used && !strings.Contains(by, "(sh) was started with "+filepath.Join(dir, "worker")) {
				t.Errorf("%q, %v", by, err)
			}
		})
	}
}
