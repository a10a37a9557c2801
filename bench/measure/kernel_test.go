package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The kernel's threads count, by what they used since an earlier look; a process that only has
// the name of one does not, and one that begins or ends does not disturb the sum.
func TestKernel(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	put := func(pid int, name string, parent int, ms int) {
		t.Helper()
		dir := filepath.Join(proc, fmt.Sprint(pid))
		for file, text := range map[string]string{
			"stat":      fmt.Sprintf("%d (%s) I %d 0 0 0 -1 2129984 0 0", pid, name, parent),
			"schedstat": fmt.Sprintf("%d 5 6\n", time.Duration(ms)*time.Millisecond),
		} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(7, "kworker/u8:2", 2, 100)
	put(8, "ksoftirqd/0", 2, 50)
	put(9, "jbd2/vda-8", 2, 10)
	put(10, "kworker/fake) I 2", 1, 1000) // a process
	put(11, "kdamond.0", 2, 1000)
	before := readKernel(proc)
	put(7, "kworker/u8:2", 2, 130)
	put(10, "kworker/fake) I 2", 1, 2000)
	put(11, "kdamond.0", 2, 2000)
	put(12, "kworker/1:0", 2, 4)
	if err := os.RemoveAll(filepath.Join(proc, "9")); err != nil {
		t.Fatal(err)
	}
	if got := readKernel(proc).Since(before); got != 34*time.Millisecond {
		t.Errorf("%v were used", got)
	}
	if got := readKernel(filepath.Join(proc, "missing")).Since(before); got != 0 {
		t.Errorf("%v without /proc", got)
	}
}

// The kernel of this machine tells what its threads used.
func TestKernelHere(t *testing.T) {
	t.Parallel()
	var sum time.Duration
	k := ReadKernel()
	for _, used := range k {
		sum += used
	}
	if _, err := os.Stat("/proc/2/schedstat"); err == nil && sum == 0 {
		t.Errorf("%d threads, and none used any time", len(k))
	}
}
