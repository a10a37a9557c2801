package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits bound a program of a release that runs as a child. Its progress is its processor
// time: on a slow device, or without memory, a second of that takes minutes.
type Limits struct {
	CPU  time.Duration // processor time of the program and of its children
	Wall time.Duration // time by the clock
}

// DefaultLimits are the limits of the self-check and of the check of config.toml.
var DefaultLimits = Limits{CPU: 10 * time.Second, Wall: 10 * time.Minute}

// slowError reports that a program reached one of its limits, and was killed.
type slowError struct {
	limit string
	used  time.Duration // of processor time
}

func (e *slowError) Error() string {
	return fmt.Sprintf("did not end within %s: the device is slow, or the program hangs (it used %v of processor time)", e.limit, e.used)
}

// wait waits for the end of a child that start started, and kills its process group, at a
// limit or afterwards: what the child left behind would run on in the service's cgroup. At a
// limit the error is a *slowError.
func (l Limits) wait(cmd *exec.Cmd) error {
	group := cmd.Process.Pid
	stop := make(chan struct{})
	var late error
	var watching sync.WaitGroup
	watching.Go(func() {
		began := time.Now()
		tick := time.NewTicker(max(time.Millisecond, min(l.Wall, l.CPU)/4)) // reading /proc costs processor time itself
		defer tick.Stop()
		for late == nil {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			switch used := cpuTime(group); {
			case used >= l.CPU:
				late = &slowError{l.CPU.String() + " of processor time", used}
			case time.Since(began) >= l.Wall:
				late = &slowError{l.Wall.String(), used}
			}
		}
		syscall.Kill(-group, syscall.SIGKILL)
	})
	err := cmd.Wait()
	close(stop)
	watching.Wait()
	syscall.Kill(-group, syscall.SIGKILL)
	if late != nil {
		return late
	}
	return err
}

// cpuTime returns the processor time of the processes in a group, and of their children that
// have ended; 0 without /proc.
func cpuTime(group int) time.Duration {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	ticks := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): the name, which may contain anything, then the state, the parent and
		// the group; the times are fields 14 to 17.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 15 || fields[2] != strconv.Itoa(group) {
			continue
		}
		for _, f := range fields[11:15] {
			n, _ := strconv.Atoi(f)
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}

// waitDelay is how long the output of a program that has ended is waited for: another process
// may have it open, and on a busy machine reading takes its time.
const waitDelay = 15 * time.Second

// stopDelay is how long the end of this process is waited for after a child got a signal that
// may be meant for both.
const stopDelay = time.Second

// execute runs the program bin of a release in dir. It returns the start of the output; an
// error has it as well.
func execute(ctx context.Context, l Limits, bin, dir string, args ...string) (output string, err error) {
	var out *head
	cmd, err := start(ctx, func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, bin, args...)
		cmd.Dir = dir
		// The program gets nothing of the service's environment, above all not NOTIFY_SOCKET.
		cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
		out = &head{}
		cmd.Stdin = strings.NewReader("") // a nil Stdin needs /dev/null
		cmd.Stdout, cmd.Stderr = out, out
		ownGroup(cmd)
		return cmd
	})
	if err != nil {
		return "", err
	}
	err = l.wait(cmd)
	if endedBy(err, stopSignals...) { // systemd signals all processes of a unit: this one may be slower
		sleep(ctx, stopDelay)
	}
	if err != nil && ctx.Err() != nil {
		return out.String(), context.Cause(ctx)
	}
	if err != nil && out.String() != "" {
		err = fmt.Errorf("%w: %s", err, out.String())
	}
	return out.String(), err
}

// ownGroup puts a child into a process group of its own, which ends with it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
}

// start starts what command returns.
func start(ctx context.Context, command func() *exec.Cmd) (*exec.Cmd, error) {
	for {
		cmd := command()
		err := cmd.Start()
		// A fork elsewhere in this process may still have the file open for writing for an
		// instant (golang.org/issue/22315).
		if !errors.Is(err, syscall.ETXTBSY) {
			return cmd, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// childEnvironment returns the environment of this process without what belongs to its own
// unit.
func childEnvironment(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "WATCHDOG_") || strings.HasPrefix(name, "LISTEN_") || name == "NOTIFY_SOCKET" || name == "INVOCATION_ID" || name == "GOMEMLIMIT"
	})
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	b     []byte
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.b = append(b.b, p[:min(len(p), b.limit-len(b.b))]...)
	return len(p), nil
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
