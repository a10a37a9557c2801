package fsutil_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
)

const devNullEnv = "EDGE_AGENT_TEST_DEV_NULL"

// Whether programs can be executed in a directory does not depend on /dev/null: without one, or
// with one that this user may not open, the answer is the same.
func TestTryExecNeedsNoDevNull(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv(devNullEnv); dir != "" {
		if f, err := os.Open(os.DevNull); err == nil {
			f.Close()
			t.Fatal("/dev/null can be opened")
		}
		if err := (fsutil.Disk{}).TryExec(t.Context(), filepath.Join(dir, ".partial-x"), "edge"); err != nil {
			t.Error(err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: it needs root")
	}
	for name, script := range map[string]string{"there is none": "true", "only root may open it": ": >/dev/null; chmod 600 /dev/null"} {
		dir := t.TempDir()
		for _, d := range []string{dir, filepath.Dir(dir)} {
			if err := os.Chmod(d, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer self.Close()
		cmd := exec.Command("sh", "-c", `mount -t tmpfs none /dev && { `+script+`; } && cd / && exec setpriv --reuid 65534 --regid 65534 --clear-groups /proc/self/fd/3 -test.run='^TestTryExecNeedsNoDevNull$'`)
		cmd.Stdin, cmd.ExtraFiles = strings.NewReader(""), []*os.File{self}
		cmd.Env = append(os.Environ(), devNullEnv+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}
