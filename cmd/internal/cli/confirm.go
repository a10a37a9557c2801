package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"github.com/spf13/cobra"
)

// Confirm asks the person at the terminal to confirm an action that cannot be undone.
// effect describes the action in sentences. Confirm returns an error unless the answer
// is yes. It does not ask if yes is true, or if the input is no terminal, as in a script.
func Confirm(cmd *cobra.Command, yes bool, effect string) error {
	in := cmd.InOrStdin()
	if yes || !terminal(in) {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s\nContinue? [y/N] ", PlainLines(effect))
	answer, err := bufio.NewReader(io.LimitReader(in, maxPlain)).ReadString('\n')
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr())
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("not confirmed; nothing was changed")
}

// terminal reports whether r is a terminal. Other character devices, such as the null
// device, are none.
func terminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	c, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var no syscall.Errno
	err = c.Control(func(fd uintptr) {
		var t syscall.Termios
		_, _, no = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TCGETS, uintptr(unsafe.Pointer(&t)))
	})
	return err == nil && no == 0
}
