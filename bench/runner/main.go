// Command runner runs one command, and writes what it used as JSON (measure.Usage).
//
// It is a small program of its own because the kernel counts the memory of the program
// that starts another one as a peak of the latter: the peak of a shell would be that of
// the benchmark. At SIGTERM, SIGINT or SIGHUP it kills the command's process group and reports as
// well.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// usage has the same JSON as measure.Usage, which would link more than this program needs.
type usage struct {
	Wall, CPU  time.Duration
	PeakRSS    int64
	Written    int64
	WrittenHow string
	Exit       int
}

func main() {
	out := flag.String("out", "", "file of the result")
	also := flag.String("also", "", "file with the ids of processes that work for the command, such as a service; what they use is added")
	started := flag.Bool("started", false, "measure what the command does after its start: it writes to its standard output when it has started, and goes on when there is a line in its standard input")
	flag.Parse()
	u, err := run(flag.Args(), *also, *started)
	if err == nil {
		var b []byte
		if b, err = json.Marshal(u); err == nil {
			err = os.WriteFile(*out, b, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(1)
	}
}

func run(args []string, also string, started bool) (usage, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	services := processes(also)
	before := use(services)
	var ready io.Reader
	var begin io.WriteCloser
	if started {
		var err1, err2 error
		cmd.Stdout = nil
		ready, err1 = cmd.StdoutPipe()
		begin, err2 = cmd.StdinPipe()
		if err := errors.Join(err1, err2); err != nil {
			return usage{}, err
		}
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return usage{}, err
	}
	go func() {
		<-stop
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}()
	var start used
	if started {
		ready.Read(make([]byte, 64)) // an error: it has ended
		go io.Copy(os.Stdout, ready)
		start.cpu = cpuTime(cmd.Process.Pid)
		start.written, _ = writeBytes(cmd.Process.Pid)
		began = time.Now()
		io.WriteString(begin, "go\n") // an error: it has ended
		begin.Close()
	}
	// Its files in /proc are there until Wait reaps it.
	if err := waitForEnd(cmd.Process.Pid); err != nil {
		return usage{}, err
	}
	u := usage{Wall: time.Since(began)}
	written, counted := writeBytes(cmd.Process.Pid)
	cmd.Wait() // its error is the exit status
	r := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	after := use(services)
	u.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() - start.cpu + after.cpu - before.cpu
	u.PeakRSS = max(r.Maxrss<<10, after.peak)
	u.Written, u.WrittenHow = written-start.written+after.written-before.written, "write_bytes of /proc/PID/io"
	if !counted {
		u.Written, u.WrittenHow = r.Oublock*512, "ru_oublock of getrusage"
	}
	u.Exit = cmd.ProcessState.ExitCode()
	return u, nil
}

// cpuTime returns the CPU time of a running process, as precisely as at its end.
func cpuTime(pid int) time.Duration {
	const schedClock = 2 // of the whole process; clock_getcpuclockid(3)
	var t syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|schedClock), uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0
	}
	return time.Duration(t.Nano())
}

// waitForEnd returns when the process has ended, and leaves it to be reaped.
func waitForEnd(pid int) error {
	const pPID, exited, noWait = 1, 4, 0x01000000
	var info [128]byte
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid), uintptr(unsafe.Pointer(&info)), exited|noWait, 0, 0)
		switch errno {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return os.NewSyscallError("waitid", errno)
		}
	}
}

// writeBytes returns the bytes of pages that a process, and the children that it waited
// for, made dirty in file systems on a disk.
func writeBytes(pid int) (int64, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, false
	}
	return field(string(text), "\nwrite_bytes:")
}

func field(text, key string) (int64, bool) {
	_, rest, ok := strings.Cut(text, key)
	if !ok {
		return 0, false
	}
	var n int64
	_, err := fmt.Sscan(rest, &n)
	return n, err == nil
}

type used struct {
	cpu     time.Duration
	peak    int64
	written int64
}

func processes(file string) (pids []int) {
	b, _ := os.ReadFile(file)
	for _, word := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// use returns what running processes, and the children that they waited for, used so far.
func use(pids []int) (u used) {
	for _, pid := range pids {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(stat), ") ")
		const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go supports
		if fields := strings.Fields(rest); len(fields) > 15 {
			for _, f := range fields[11:15] { // utime, stime, cutime, cstime
				n, _ := strconv.Atoi(f)
				u.cpu += time.Duration(n) * tick
			}
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		kib, _ := field(string(status), "\nVmHWM:")
		u.peak = max(u.peak, kib<<10)
		n, _ := writeBytes(pid)
		u.written += n
	}
	return u
}
