package rig_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
)

// The real agent stages a release ten times as large as its memory limit: it streams the
// tarball, and the tar.zst, whose decoder keeps a window.
func TestMemoryDoesNotGrowWithTheTarball(t *testing.T) {
	if testing.Short() {
		t.Skip("makes releases of 500 MB")
	}
	for name, o := range map[string]fakerelease.Options{
		"tarball":           {},
		"tar.zst in chunks": {Formats: []string{release.FormatZstd}, Chunks: true},
	} {
		t.Run(name, func(t *testing.T) { memoryOf(t, o) })
	}
}

// Nor with the number of its files and directories: 9 bytes of each name are kept.
func TestMemoryWithManyFiles(t *testing.T) {
	box.Long(t) // it packs, serves and syncs 30,000 files in 60,000 directories
	b, mark := memoryOf(t, fakerelease.Options{Formats: []string{release.FormatZstd}, Chunks: true, PadFiles: 30_000})
	// The next upgrade compares them with their record: they are the way back.
	b.event(mark, "upgrade_completed")
	pid := b.started(mark)
	for tick := time.Tick(100 * time.Millisecond); b.resident(pid) > idle; <-tick { // until it has given memory back
	}
	if _, err := b.Publish(fakerelease.Options{Version: "1.2.0", Binary: b.bin["1.2.0"]}); err != nil {
		t.Fatal(err)
	}
	mark, _ = b.upgrade("1.2.0")
	b.peakWhileStaging(pid, mark)
}

func memoryOf(t *testing.T, o fakerelease.Options) (b *bench, mark int) {
	const padding = 500_000_000
	b = setup(t, rig.NodeConfig{})
	o.Version, o.Binary, o.PadBytes = "1.1.0", b.bin["1.1.0"], padding
	if _, err := b.Publish(o); err != nil {
		t.Fatal(err)
	}
	pid := b.started(0)
	mark, _ = b.upgrade("1.1.0")
	b.peakWhileStaging(pid, mark)
	return b, mark
}

// peakWhileStaging follows the agent, a process, until it has staged the release of an upgrade that
// began after mark, and until its new version runs.
func (b *bench) peakWhileStaging(pid, mark int) {
	b.t.Helper()
	const limit = 32 << 20
	staged := make(chan struct{})
	go func() {
		defer close(staged)
		b.event(mark, "upgrade_staged")
	}()
	// VmHWM only rises, and goes with the process; the last look is the peak.
	peak := 0
	for tick := time.Tick(20 * time.Millisecond); ; <-tick {
		if kb, ok := peakRSS(pid); ok {
			peak = max(peak, kb<<10)
		}
		select {
		case <-staged:
			b.t.Logf("peak RSS of the agent while it staged the release: %.1f MiB", float64(peak)/(1<<20))
			if peak == 0 || peak > limit {
				b.t.Errorf("peak RSS is %d bytes; the limit is %d", peak, limit)
			}
			b.wait(mark, "ready", func(e rig.Entry) bool { return e.Type == "ready" })
			return
		default:
		}
	}
}

// An idle agent with a TLS session needs little memory, also after the health
// messages that follow its start.
func TestIdleMemory(t *testing.T) {
	box.Long(t) // it waits for two health messages
	b := setup(t, rig.NodeConfig{})
	pid := b.started(0)
	tick := time.Tick(100 * time.Millisecond)
	for b.resident(pid) > idle {
		<-tick
	}
	// Two more health messages: what the agent uses while it idles is resident then.
	seen := 0
	for last := (time.Time{}); seen < 3; <-tick {
		n, err := b.Client.Node(b.ctx, b.id)
		if err != nil {
			t.Fatal(err)
		}
		if n.LastSeen.After(last) {
			seen, last = seen+1, n.LastSeen
		}
	}
	if got := b.resident(pid); got > idle {
		t.Errorf("the resident memory is %d bytes; the limit is %d", got, idle)
	} else {
		t.Logf("resident memory of an idle agent: %.1f MiB", float64(got)/(1<<20))
	}
}

// idle is what an idle agent may have resident, in bytes.
const idle = 17 << 20

// resident returns the resident memory of a process, in bytes.
func (b *bench) resident(pid int) int {
	b.t.Helper()
	kb, ok := statusKB(pid, "VmRSS:")
	if !ok || b.ctx.Err() != nil {
		b.t.Fatalf("the resident memory is %d KiB; the limit is %d KiB", kb, idle>>10)
	}
	return kb << 10
}

// peakRSS returns VmHWM of a process, in KiB.
func peakRSS(pid int) (kb int, ok bool) { return statusKB(pid, "VmHWM:") }

// statusKB returns a value of /proc/PID/status, in KiB.
func statusKB(pid int, key string) (kb int, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	_, rest, ok := strings.Cut(string(text), key)
	if !ok {
		return 0, false
	}
	_, err = fmt.Sscan(rest, &kb)
	return kb, err == nil
}
