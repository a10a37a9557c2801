package main

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
)

// answer runs a command on a terminal, on which a person has typed something.
func (m *testManager) answer(typed string, args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		noTerminal(m.t, err)
	}
	defer keyboard.Close()
	var n, unlock int32
	for request, arg := range map[uintptr]*int32{syscall.TIOCGPTN: &n, syscall.TIOCSPTLCK: &unlock} {
		if _, _, no := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(arg))); no != 0 {
			m.t.Fatal(no)
		}
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		noTerminal(m.t, err)
	}
	defer screen.Close()
	if _, err := keyboard.WriteString(typed); err != nil {
		m.t.Fatal(err)
	}
	var out, errs bytes.Buffer
	root := newRootCmd()
	root.SetIn(screen)
	code = cli.Run(m.t.Context(), root, append(args, "--dir", m.dir), &out, &errs)
	return out.String(), errs.String(), code
}

// noTerminal skips a test if no terminal can be created; in CI it fails.
func noTerminal(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("EDGE_AGENT_NO_SKIP") != "" {
		t.Fatal(err)
	}
	t.Skipf("no terminal can be made here: %v", err)
}
