//go:build sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// injectFault makes this program fail as the file sim-fault beside it says.
// "manager-sim release publish --fault" puts that file into a release, so that one
// real program can be released good and bad. Only simulation builds do this.
func injectFault(ctx context.Context, a *Agent) error {
	b, err := os.ReadFile(filepath.Join(programDir(), "sim-fault"))
	if err != nil {
		return nil
	}
	fault := strings.TrimSpace(string(b))
	a.log.Warn("injecting the fault that the release names", "fault", fault)
	switch fault {
	case "exits-at-once":
		return errors.New("simulated crash")
	case "hangs":
		<-ctx.Done()
		return nil
	case "never-authenticates":
		a.c.URLs = []string{"wss://127.0.0.1:1/ws/node"} // nobody listens there
	case "never-healthy":
		a.c.Check = func(context.Context) error { return errors.New("simulated fault") }
	case "ready-then-exits":
		a.notify("READY=1")
		return errors.New("simulated crash after READY=1")
	case "ready-then-hangs":
		a.notify("READY=1")
		<-ctx.Done()
		return nil
	case "segfaults":
		return unix.Kill(os.Getpid(), unix.SIGSEGV)
	case "eats-memory":
		eatMemory(ctx)
		return nil
	case "deletes-previous":
		return errors.Join(os.Remove(a.c.Layout.Previous()), errors.New("simulated crash"))
	case "fills-disk":
		return fillDisk(filepath.Join(a.c.Layout.Root(), "filling"))
	case "wrong-version":
		a.c.version = release.MustVersion("0.0.1")
	default:
		name, of, _ := strings.Cut(fault, " ")
		inject, ok := verdictFaults[name]
		if !ok {
			return fmt.Errorf("sim-fault: %q is not a fault of this build", fault)
		}
		return inject(ctx, a, of)
	}
	return nil
}

// eatMemory holds up to 1 GiB, which is more than a test's MemoryMax=.
func eatMemory(ctx context.Context) {
	var held [][]byte
	for range 256 {
		b := make([]byte, 4<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
	}
	<-ctx.Done()
	runtime.KeepAlive(held)
}

// fillDisk writes, up to 1 GiB, until the disk is full.
func fillDisk(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, io.LimitReader(zeros{}, 1<<30))
	return errors.Join(err, errors.New("simulated crash with a full disk"))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// programDir returns the directory of the version that runs.
func programDir() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	return filepath.Dir(exe)
}
