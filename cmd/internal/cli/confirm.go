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

// Confirm asks a person whether what cannot be undone shall happen. will says, in
// whole sentences, what that is. Without a terminal as its input, as in a script, or
// with yes it asks nothing. Its error is that the answer was not yes.
func Confirm(cmd *cobra.Command, yes bool, will string) error {
	in := cmd.InOrStdin()
	if yes || !terminal(in) {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s\nContinue? [y/N] ", PlainLines(will))
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

// terminal reports whether r is a terminal. The null device, for one, is a character
// device and no terminal.
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
