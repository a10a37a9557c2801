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
	"time"

	"golang.org/x/sys/unix"
)

// Tune sets Go's runtime for what an agent does. To set that runs the collector once.
var Tune = sync.OnceFunc(func() {
	// The heap is small, and the window of a tar.zst is most of it: the collector runs before as
	// much again is garbage.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(8)
	}
	// A goroutine in a system call keeps its processor for up to 10 ms. Staging syncs while it
	// downloads and unpacks: on two cores, all would often wait for the disk.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
	last := time.Now()
	afterCollections(func() {
		if time.Since(last) > unmapPause && mapped() > maxMapped {
			unmap()
			last = time.Now()
		}
	})
})

// The kernel maps 64 KiB of a program around each page that is used: after some hours of
// everything that an agent does at times, all 16 MB of it are resident. Where more than
// maxMapped bytes are, they are unmapped, and those in use mapped again, at most once in
// unmapPause.
const (
	maxMapped  = 7 << 20
	unmapPause = time.Second / 2
)

// afterCollections calls f after each run of the collector: a process that does nothing has
// none, and needs no timer.
func afterCollections(f func()) {
	// A pointer to a pointer: small objects without one live until others of their block are dead, too.
	runtime.AddCleanup(new(*int), func(int) {
		f()
		afterCollections(f)
	}, 0)
}

// mapped returns how many bytes of files are resident, by proc(5), statm; 0 if it is not known.
func mapped() int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident, shared int
	if _, err := fmt.Sscan(string(text), &size, &resident, &shared); err != nil {
		return 0
	}
	return shared * os.Getpagesize()
}

// Shrink gives back the memory that only the start, or a verification, needed: the heap's free
// pages, and the mappings of the program's own code and constants. The latter stay in the page
// cache: those that an idle agent uses are mapped again without a read of the disk. It takes
// 10 MB from the resident memory of an idle agent.
func Shrink() {
	Tune()
	debug.FreeOSMemory()
	unmap()
}

// unmap takes away the mappings of the program's own code and constants. Those in use are mapped
// again, without a read of the disk.
func unmap() {
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
