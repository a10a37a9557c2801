package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// selfCheck runs `<binary> version` in dir, before anything is swapped. It finds a
// program for another machine, or one whose loader or library is missing. The output
// does not matter.
func (s *Stager) selfCheck(ctx context.Context, dir string) error {
	s.Progress(PhaseCheck, 0, 0)
	bin := filepath.Join(dir, s.Binary)
	st, err := os.Lstat(bin)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return release.Errorf(release.ExtractFailed, "the release has no %s", s.Binary)
	case errors.Is(err, fs.ErrPermission):
		return release.Errorf(release.ExtractFailed, "self-check: %s of the release cannot be reached: %s: %w", s.Binary, explainForbidden(bin), err)
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return release.Errorf(release.ExtractFailed, "%s of the release is not a regular file", s.Binary)
	case st.Mode()&0o111 == 0:
		return release.Errorf(release.ExtractFailed, "%s of the release is not executable", s.Binary)
	case s.NoRun:
		return nil
	}

	_, err = execute(ctx, s.CheckTimeout, bin, dir, "version")
	return unsound(err, "self-check", s.Binary, bin, "version", s.CheckTimeout)
}

// unsound returns what the error of execute says of a release, with its code; nil for nil.
// check is what was tried, by the given command of the program.
func unsound(err error, check, program, bin, command string, limit time.Duration) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOEXEC):
		return release.Errorf(release.ArchMismatch, "%s of the release cannot run on this machine (%s): %w", program, release.HostArch(), err)
	case noLoader(err, bin):
		return release.Errorf(release.ArchMismatch, "%s of the release needs a loader that this machine does not have: %w", program, err)
	case errors.Is(err, errNoEnd):
		return release.Errorf(release.ExtractFailed, "%s: `%s %s` did not end within %v", check, program, command, limit)
	case errors.Is(err, fs.ErrPermission):
		return release.Errorf(release.ExtractFailed, "%s: `%s %s` may not be executed: %s: %w", check, program, command, explainForbidden(bin), err)
	}
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case !ended && !errors.Is(err, exec.ErrWaitDelay):
		return release.Errorf(release.Internal, "%s: `%s %s` could not be started, for a fault of this machine: %w", check, program, command, err)
	case ended && wrongProcessor(exit, err.Error()):
		return release.Errorf(release.ArchMismatch, "%s of the release needs instructions that this processor does not have (%s): %w", program, release.HostArch(), err)
	case ended && endedFromOutside(exit):
		return release.Errorf(release.Internal, "%s: `%s %s` was ended from outside: is the memory, or a limit of the unit, too small? %w", check, program, command, err)
	}
	return release.Errorf(release.ExtractFailed, "%s: `%s %s`: %w", check, program, command, err)
}

// wrongProcessor reports whether a program ended because the processor lacks what it was built
// for: by the signal, also where a shell passes it on, or by the words of Go and glibc.
func wrongProcessor(exit *exec.ExitError, words string) bool {
	status, _ := exit.Sys().(syscall.WaitStatus)
	if status.Signaled() && status.Signal() == syscall.SIGILL || exit.ExitCode() == 128+int(syscall.SIGILL) {
		return true
	}
	return slices.ContainsFunc([]string{"microarchitecture support", "CPU ISA level is lower", "CPU does not support", "this CPU has no"},
		func(s string) bool { return strings.Contains(words, s) })
}

// endedFromOutside reports whether the kernel or somebody else ended a program.
func endedFromOutside(exit *exec.ExitError) bool {
	status, _ := exit.Sys().(syscall.WaitStatus)
	return status.Signaled() && slices.Contains([]syscall.Signal{syscall.SIGKILL, syscall.SIGXCPU, syscall.SIGXFSZ}, status.Signal())
}

// noLoader reports whether the kernel found bin, and not the program that loads it. Another
// file that is missing, like /dev/null, is no fault of the release.
func noLoader(err error, bin string) bool {
	var path *fs.PathError
	return errors.Is(err, syscall.ELIBBAD) || errors.Is(err, fs.ErrNotExist) && (!errors.As(err, &path) || path.Path == bin)
}

// explainForbidden returns why the kernel does not execute bin although its x bits are
// set, and what to check.
func explainForbidden(bin string) string {
	if fsutil.NoExec(bin) {
		return explainNoExec(bin)
	}
	closed := "" // the topmost directory that this user may not enter
	for dir := filepath.Dir(bin); ; dir = filepath.Dir(dir) {
		if unix.Access(dir, unix.X_OK) != nil {
			closed = dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if closed != "" {
		return fmt.Sprintf("the user of this process (uid %d) may not enter %s: give it the x bit there", os.Geteuid(), closed)
	}
	if unix.Access(bin, unix.X_OK) != nil {
		return fmt.Sprintf("the user of this process (uid %d) has no x bit on %s: look at its owner, its mode and its ACL", os.Geteuid(), bin)
	}
	return "the modes allow it, so a security module does not: look for SELinux, AppArmor or fapolicyd in the journal (journalctl -k)"
}

// explainNoExec returns why nothing in dir can be executed.
func explainNoExec(dir string) string {
	return fmt.Sprintf("%s is on a file system mounted noexec: mount it with exec, or set service.install_root elsewhere", dir)
}

// errNoEnd reports that a program did not end in its time, and was killed.
var errNoEnd = errors.New("did not end in time")

// execute runs the program bin of a release in dir, for at most limit. It returns the
// start of the output; an error has it as well.
func execute(ctx context.Context, limit time.Duration, bin, dir string, args ...string) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		output, err = executeOnce(ctx, bin, dir, args)
		// A fork elsewhere in this process may still have the file open for writing for an
		// instant (golang.org/issue/22315).
		if !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
			continue
		}
		break
	}
	if err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		err = errNoEnd
	}
	return output, err
}

// waitDelay is how long the output of a program that has ended is waited for: another process
// may have it open, and on a busy machine reading takes its time.
const waitDelay = 5 * time.Second

func executeOnce(ctx context.Context, bin, dir string, args []string) (output string, err error) {
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir = dir
	// The program gets nothing of the service's environment, above all not NOTIFY_SOCKET.
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	var out head
	cmd.Stdin = strings.NewReader("") // a nil Stdin needs /dev/null
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	err = cmd.Run()
	if cmd.Process != nil { // what the program left behind would run on in the service's cgroup
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err != nil && out.String() != "" {
		err = fmt.Errorf("%w: %s", err, out.String())
	}
	return out.String(), err
}

// headLimit bounds the output of a program that an error quotes, in bytes.
const headLimit = 300

// head keeps the first bytes of a program's output, on one line.
type head struct{ b []byte }

func (h *head) Write(p []byte) (int, error) {
	if room := headLimit - len(h.b); room > 0 {
		h.b = append(h.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (h *head) String() string {
	return strings.ToValidUTF8(strings.Join(strings.Fields(string(h.b)), " "), "?")
}
