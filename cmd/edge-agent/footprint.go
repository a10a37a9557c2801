package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// shrinkAfter is when a started agent has its session, and idles.
const shrinkAfter = 10 * time.Second

// shrink gives back the memory that only the start needed: the heap's free pages,
// and the mappings of the program's own code and constants. The latter stay in the
// page cache: those that an idle agent uses are mapped again without a read of the
// disk. It takes 10 MB from the resident memory of an idle agent.
func shrink() {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(s.Text(), "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasSuffix(s.Text(), exe) {
			continue
		}
		if mode == "r-xp" || mode == "r--p" { // never what the program may have written
			// An error leaves the pages mapped, which is harmless.
			unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}
