package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/spf13/cobra"
)

// noTerminal skips a test if no terminal can be created; in CI it fails.
func noTerminal(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("EDGE_AGENT_NO_SKIP") != "" {
		t.Fatal(err)
	}
	t.Skipf("no terminal can be made here: %v", err)
}

// pty returns the two sides of a terminal.
func pty(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		noTerminal(t, err)
	}
	t.Cleanup(func() { keyboard.Close() })
	var n, unlock int32
	for request, arg := range map[uintptr]*int32{syscall.TIOCGPTN: &n, syscall.TIOCSPTLCK: &unlock} {
		if _, _, no := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(arg))); no != 0 {
			t.Fatal(no)
		}
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		noTerminal(t, err)
	}
	t.Cleanup(func() { screen.Close() })
	return keyboard, screen
}

// On a terminal only yes confirms.
func TestConfirmOnATerminal(t *testing.T) {
	t.Parallel()
	for typed, ok := range map[string]bool{"y\n": true, "Yes\n": true, " YES \n": true, "\n": false, "n\n": false, "yesterday\n": false, "\x04": false, "\x00\n": false} {
		keyboard, screen := pty(t)
		if _, err := keyboard.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetIn(screen)
		cmd.SetErr(&errs)
		if err := Confirm(cmd, false, "This removes a\x1b[2Kb."); (err == nil) != ok {
			t.Errorf("%q: %v", typed, err)
		}
		if !strings.HasPrefix(errs.String(), "This removes a?[2Kb.\nContinue? [y/N] ") {
			t.Errorf("%q: asks %q", typed, errs.String())
		}
	}
}

// Confirm does not ask a script, nor with --yes.
func TestConfirmWithoutATerminal(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.Close()
	ask := func(yes bool, set func(*cobra.Command)) {
		t.Helper()
		var errs bytes.Buffer
		cmd := &cobra.Command{}
		set(cmd)
		cmd.SetErr(&errs)
		if err := Confirm(cmd, yes, "This removes it."); err != nil || errs.Len() > 0 {
			t.Errorf("%v %q", err, &errs)
		}
	}
	ask(false, func(c *cobra.Command) { c.SetIn(null) })
	ask(false, func(c *cobra.Command) { c.SetIn(r) })
	ask(false, func(c *cobra.Command) { c.SetIn(strings.NewReader("n\n")) })
	_, screen := pty(t)
	ask(true, func(c *cobra.Command) { c.SetIn(screen) })
}
