package rig_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
)

// An agent that was killed in the middle of a large release needs no more memory to go on.
func TestMemoryOfAResumedStaging(t *testing.T) {
	box.Long(t) // it makes releases of 500 MB
	for name, files := range map[string]int{"one file": 1, "many files": 30_000} {
		t.Run(name, func(t *testing.T) {
			const padding = 500_000_000
			b := setup(t, rig.NodeConfig{})
			if _, err := b.Publish(fakerelease.Options{Version: "1.1.0", Binary: b.bin["1.1.0"], PadBytes: padding, PadFiles: files,
				Formats: []string{release.FormatZstd}, Chunks: true}); err != nil {
				t.Fatal(err)
			}
			pid := b.started(0)
			mark, _ := b.upgrade("1.1.0")
			half := func() bool {
				downloads, _ := filepath.Glob(filepath.Join(b.node.Root, "downloads", "*.unverified"))
				for _, d := range downloads {
					if st, err := os.Stat(d); err == nil && st.Size() > padding/2 {
						return true
					}
				}
				return false
			}
			for tick := time.Tick(10 * time.Millisecond); !half(); <-tick {
			}
			again := b.Timeline.Mark()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			b.peakWhileStaging(b.started(again), mark)
		})
	}
}

// started returns the process of the agent that starts after mark.
func (b *bench) started(mark int) (pid int) {
	b.t.Helper()
	e := b.wait(mark, "the start", func(e rig.Entry) bool { return e.From == rig.FromNode && e.Type == "started" })
	if _, err := fmt.Sscanf(e.Message, "pid %d", &pid); err != nil {
		b.t.Fatal(err)
	}
	return pid
}
