package stage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// selfCheck runs `<binary> version` in dir, before anything is swapped. It finds a
// program for another machine, or one whose loader or library is missing. The output
// does not matter.
func (s *Stager) selfCheck(ctx context.Context, dir string) error {
	s.Progress(PhaseCheck, 0, 0)
	if err := s.checkProgram(dir); err != nil || s.NoRun {
		return err
	}
	bin := filepath.Join(dir, s.Binary)
	_, err := execute(ctx, s.Check, bin, dir, "version")
	return unsound(err, "self-check", s.Binary, bin, "version")
}

// checkProgram looks at the program of the release in dir.
func (s *Stager) checkProgram(dir string) error {
	st, err := os.Lstat(filepath.Join(dir, s.Binary))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return release.Errorf(release.ExtractFailed, "the release has no %s", s.Binary)
	case errors.Is(err, fs.ErrPermission):
		return release.Errorf(release.ExtractFailed, "self-check: %s of the release cannot be reached: %w", s.Binary, fsutil.NameDenial(err))
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return release.Errorf(release.ExtractFailed, "%s of the release is not a regular file", s.Binary)
	case st.Mode()&0o111 == 0:
		return release.Errorf(release.ExtractFailed, "%s of the release is not executable", s.Binary)
	}
	return nil
}

// unsound returns what the error of execute says of a release, with its code; nil for nil.
// check is what was tried, by the given command of the program.
func unsound(err error, check, program, bin, command string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOEXEC):
		return release.Errorf(release.ArchMismatch, "%s of the release cannot run on this machine (%s): %w", program, release.HostArch(), err)
	case noLoader(err, bin):
		return release.Errorf(release.ArchMismatch, "%s of the release needs a loader that this machine does not have: %w", program, err)
	case errors.As(err, new(*slowError)):
		return release.Errorf(release.ExtractFailed, "%s: `%s %s` %w", check, program, command, err)
	case endedBy(err, syscall.SIGKILL):
		return release.Errorf(release.Internal, "%s: `%s %s` was killed, probably by the kernel because memory is short: see journalctl -k: %w", check, program, command, err)
	case endedBy(err, syscall.SIGBUS):
		return release.Errorf(release.Internal, "%s: `%s %s` could not read or write memory: look for errors of the disk, or of memory (journalctl -k): %w", check, program, command, err)
	case endedBy(err, stopSignals...):
		return release.Errorf(release.Internal, "%s: `%s %s` was ended from outside: by a service that stops, by an operator, or by a program that frees memory (journalctl): %w", check, program, command, err)
	case errors.Is(err, fs.ErrPermission):
		return release.Errorf(release.ExtractFailed, "%s: `%s %s` may not be executed: %w", check, program, command, fsutil.NameDenial(err))
	}
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case !ended && !errors.Is(err, exec.ErrWaitDelay):
		return release.Errorf(release.Internal, "%s: `%s %s` could not be started, for a fault of this machine: %w", check, program, command, err)
	case ended && wrongProcessor(exit, err.Error()):
		return release.Errorf(release.ArchMismatch, "%s of the release needs instructions that this processor does not have (%s): %w", program, release.HostArch(), err)
	case endedBy(err, limitSignals...):
		return release.Errorf(release.Internal, "%s: `%s %s` reached a limit of the unit, or of the file system: %w", check, program, command, err)
	}
	return release.Errorf(release.ExtractFailed, "%s: `%s %s`: %w", check, program, command, err)
}

// wrongProcessor reports whether a program ended because the processor lacks what it was built
// for: by the signal, also where a shell passes it on, or by the words of Go and glibc.
func wrongProcessor(exit *exec.ExitError, words string) bool {
	if endedBy(exit, syscall.SIGILL) {
		return true
	}
	return slices.ContainsFunc([]string{"microarchitecture support", "CPU ISA level is lower", "CPU does not support", "this CPU has no"},
		func(s string) bool { return strings.Contains(words, s) })
}

// Signals that are no fault of a program.
var (
	// Others send them: systemd at a stop, an operator, a program that frees memory.
	stopSignals = []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPWR}
	// The kernel sends them at a limit of processor time, or of the size of files.
	limitSignals = []syscall.Signal{syscall.SIGXCPU, syscall.SIGXFSZ}
	// The kernel sends SIGKILL where memory is short, and SIGBUS where it cannot read a file
	// that is mapped.
	deviceSignals = slices.Concat(stopSignals, limitSignals, []syscall.Signal{syscall.SIGKILL, syscall.SIGBUS})
)

// endedBy reports whether a program was ended by one of the signals, or by a shell that
// passes one of them on.
func endedBy(err error, signals ...syscall.Signal) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, _ := exit.Sys().(syscall.WaitStatus)
	return slices.ContainsFunc(signals, func(s syscall.Signal) bool {
		return status.Signaled() && status.Signal() == s || status.Exited() && status.ExitStatus() == 128+int(s)
	})
}

// ofDevice reports whether this device, and not the release, is the cause of an error of
// building a version, so that a later attempt may succeed. On a full disk the tarball is not
// worth its space, and files that are in the way stay there.
func ofDevice(err error) bool {
	switch {
	case isCode(err, release.ArchMismatch), fsutil.IsNoSpace(err), errors.As(err, new(blocked)):
		return false
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded): // the process stops
		return true
	}
	return errors.As(err, new(*slowError)) || endedBy(err, deviceSignals...) || faultOfMachine(err) ||
		!errors.As(err, new(*release.Error)) && errors.As(err, new(syscall.Errno)) // of a name that is not the archive's
}

// noLoader reports whether the kernel found bin, and not the program that loads it. Another
// file that is missing, like /dev/null, is no fault of the release.
func noLoader(err error, bin string) bool {
	var path *fs.PathError
	return errors.Is(err, syscall.ELIBBAD) || errors.Is(err, fs.ErrNotExist) && (!errors.As(err, &path) || path.Path == bin)
}
