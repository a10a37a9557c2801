package measure

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Kernel is the CPU time that threads of the kernel used so far, by thread: those that write
// files to a disk and that finish what interrupts began. No process is charged for their work.
type Kernel map[int]time.Duration

// kernelThreads are the beginnings of their names.
var kernelThreads = []string{"kworker/", "ksoftirqd/", "jbd2/", "xfs", "loop", "kswapd"}

// ReadKernel returns the CPU time until now. It is empty where the kernel does not tell it.
func ReadKernel() Kernel { return readKernel("/proc") }

func readKernel(proc string) Kernel {
	k := Kernel{}
	dirs, _ := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || !isKernelThread(dir) {
			continue
		}
		b, _ := os.ReadFile(filepath.Join(dir, "schedstat"))
		if f := strings.Fields(string(b)); len(f) > 0 {
			if ns, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				k[pid] = time.Duration(ns)
			}
		}
	}
	return k
}

// isKernelThread reports whether a process is a child of kthreadd, which has number 2, and has
// one of the names.
func isKernelThread(dir string) bool {
	b, _ := os.ReadFile(filepath.Join(dir, "stat")) // PID (NAME) STATE PPID ...
	_, b, _ = bytes.Cut(b, []byte("("))
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return false
	}
	if f := bytes.Fields(b[end+1:]); len(f) < 2 || string(f[1]) != "2" {
		return false
	}
	for _, name := range kernelThreads {
		if bytes.HasPrefix(b, []byte(name)) {
			return true
		}
	}
	return false
}

// Since returns what was used after before. A thread that ended meanwhile is left out.
func (k Kernel) Since(before Kernel) time.Duration {
	var sum time.Duration
	for pid, used := range k {
		if more := used - before[pid]; more > 0 {
			sum += more
		}
	}
	return sum
}
