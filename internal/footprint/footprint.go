// Package footprint sets Go's runtime for what an agent does, and gives back memory that only
// one part of its work needed. It changes the whole process: only programs call it, no package.
package footprint

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Tune sets Go's runtime for what an agent does. To set that runs the collector once.
var Tune = sync.OnceFunc(func() {
	// The heap is small, and the window of a tar.zst is most of it: the collector runs before as
	// much again is garbage.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(12)
	}
	// A goroutine in a system call keeps its processor for up to 10 ms. Staging syncs while it
	// downloads and unpacks: on two cores, all would often wait for the disk.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
})

// Shrink gives back the memory that only the start, or a verification, needed: the heap's free
// pages, and the mappings of the program's own code and constants. The latter stay in the page
// cache: those that an idle agent uses are mapped again without a read of the disk. It takes
// 10 MB from the resident memory of an idle agent.
func Shrink() {
	Tune()
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range unmodified(string(text), exe) {
		// An error leaves the pages mapped, which is harmless.
		unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

type mapping struct{ from, to uintptr }

// unmodified returns the mappings of the file exe in smaps, the text of /proc/PID/smaps
// (proc(5)), that the program cannot write and that have no page which differs from
// the file. A loader may have written relocations before it took the right to write
// away, as in a position-independent program: those pages must stay.
func unmodified(smaps, exe string) []mapping {
	var all []mapping
	var m mapping
	ours, clean := false, false
	add := func() {
		if ours && clean {
			all = append(all, m)
		}
		ours, clean = false, false
	}
	for line := range strings.Lines(smaps) {
		line = strings.TrimSuffix(line, "\n")
		key, value, isField := strings.Cut(line, ":")
		if isField && !strings.Contains(key, " ") {
			if key == "Anonymous" {
				clean = strings.TrimSpace(value) == "0 kB"
			}
			continue
		}
		add()
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &m.from, &m.to, &mode); err == nil {
			ours = (mode == "r-xp" || mode == "r--p") && strings.HasSuffix(line, " "+exe)
		}
	}
	add()
	return all
}
