// Package supervise runs a service by the rules of a systemd unit on a machine without
// systemd, for the demo and for tests. It implements these directives of
// systemd.service(5), and no others:
//
//   - Type=notify: a start succeeds when the service sends READY=1
//   - ExecStartPre=: runs first, to its end; the start fails if it fails
//   - Restart=always, RestartSec=: also after a clean exit
//   - TimeoutStartSec=: from the start of ExecStartPre to READY=1; a start that takes
//     longer fails. EXTEND_TIMEOUT_USEC= extends it
//   - TimeoutStopSec=: from SIGTERM to SIGKILL
//   - KillMode=control-group, with a process group: no process of one start is left
//     when the next begins
//   - StartLimitIntervalSec=0: it never stops restarting
//
// Each start resolves the path of the program again, so it follows a link that was
// swapped. The kernel kills the service when this process is killed.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Unit describes a service.
type Unit struct {
	ExecStartPre []string // may be empty
	ExecStart    []string
	Env          []string // added to the environment of this process
	Restart      time.Duration
	TimeoutStart time.Duration
	TimeoutStop  time.Duration // default 5 s
	Output       io.Writer     // gets the output of all processes
	// OnChange gets every Event, in order. One goroutine calls it.
	OnChange func(Event)
}

// Kind is the kind of an Event.
type Kind string

// The kinds of events.
const (
	PreStarted   Kind = "pre_started"   // ExecStartPre begins
	PreFailed    Kind = "pre_failed"    // ExecStartPre did not exit with 0
	ExecFailed   Kind = "exec_failed"   // the program cannot be executed
	Started      Kind = "started"       // the process runs, and is not ready yet
	Ready        Kind = "ready"         // READY=1
	StatusText   Kind = "status"        // STATUS=
	StartTimeout Kind = "start_timeout" // not ready in time
	Exited       Kind = "exited"
	Stopped      Kind = "stopped" // because the context of Run ended
)

// Event is a change of the service.
type Event struct {
	Time  time.Time
	Kind  Kind
	Start int // number of the start, from 1
	Text  string
}

// Run keeps the service running until ctx ends, and then stops it. It returns an error
// only if it could not begin.
func Run(ctx context.Context, u Unit) error {
	// Pdeathsig follows the thread that started the process, so this thread must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if u.TimeoutStop == 0 {
		u.TimeoutStop = 5 * time.Second
	}
	dir, err := os.MkdirTemp("", "sup") // short: a socket's path has 108 bytes
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &supervisor{Unit: u, sock: filepath.Join(dir, "notify")}
	if u.Output == nil {
		s.Output = io.Discard
	}
	s.Output = &lockedWriter{w: s.Output}
	s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.sock, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	messages := make(chan string)
	var wg sync.WaitGroup
	wg.Go(func() { s.read(messages) })
	for n := 1; ctx.Err() == nil; n++ {
		s.start = n
		s.once(ctx, messages)
		select {
		case <-ctx.Done():
		case <-time.After(u.Restart):
		}
	}
	s.tell(Stopped, "")
	s.conn.Close()
	for range messages { // until the reader ends
	}
	wg.Wait()
	return nil
}

type supervisor struct {
	Unit
	sock  string
	conn  *net.UnixConn
	start int
}

func (s *supervisor) tell(k Kind, text string) {
	if s.OnChange != nil {
		s.OnChange(Event{time.Now(), k, s.start, text})
	}
}

// read forwards the messages of the service until the socket is closed.
func (s *supervisor) read(to chan<- string) {
	defer close(to)
	b := make([]byte, 4096)
	for {
		n, err := s.conn.Read(b)
		if err != nil {
			return
		}
		to <- string(b[:n])
	}
}

// once runs one start, from ExecStartPre to the end of the service.
func (s *supervisor) once(ctx context.Context, messages <-chan string) {
	timeout := time.NewTimer(s.TimeoutStart)
	defer timeout.Stop()
	if len(s.ExecStartPre) > 0 {
		s.tell(PreStarted, "")
		p, err := s.spawn(s.ExecStartPre)
		if err == nil {
			select {
			case err = <-p.done:
			case <-timeout.C:
				err = errors.New("it took longer than TimeoutStartSec=")
			case <-ctx.Done():
				err = ctx.Err()
			}
			s.end(p)
		}
		if err != nil {
			if ctx.Err() == nil {
				s.tell(PreFailed, err.Error())
			}
			return
		}
	}
	p, err := s.spawn(s.ExecStart)
	if err != nil {
		s.tell(ExecFailed, err.Error())
		return
	}
	s.tell(Started, "pid "+strconv.Itoa(p.cmd.Process.Pid))
	s.follow(ctx, p, messages, timeout)
	s.end(p)
}

// follow handles the messages of a running service until it ends or must end.
func (s *supervisor) follow(ctx context.Context, p *process, messages <-chan string, timeout *time.Timer) {
	ready := false
	for {
		select {
		case err := <-p.done:
			s.tell(Exited, exitText(err))
			return
		case <-ctx.Done():
			return
		case <-timeout.C:
			if !ready {
				s.tell(StartTimeout, fmt.Sprintf("no READY=1 within %v", s.TimeoutStart))
				return
			}
		case m := <-messages:
			for _, line := range strings.Split(m, "\n") {
				name, value, _ := strings.Cut(line, "=")
				switch name {
				case "READY":
					if !ready {
						ready = true
						s.tell(Ready, "")
					}
				case "STATUS":
					s.tell(StatusText, value)
				case "EXTEND_TIMEOUT_USEC":
					if us, err := strconv.ParseInt(value, 10, 64); err == nil && us > 0 && !ready {
						timeout.Reset(time.Duration(us) * time.Microsecond)
					}
				}
			}
		}
	}
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// process is a command with its process group.
type process struct {
	cmd  *exec.Cmd
	done chan error // gets one result, and is then closed
}

func (s *supervisor) spawn(args []string) (*process, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(append(os.Environ(), s.Env...), "NOTIFY_SOCKET="+s.sock)
	cmd.Stdout, cmd.Stderr = s.Output, s.Output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // do not wait longer for a child that keeps the pipes open
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, make(chan error, 1)}
	go func() {
		p.done <- cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// end ends every process of p: SIGTERM, then SIGKILL to the whole group.
func (s *supervisor) end(p *process) {
	group := -p.cmd.Process.Pid
	if syscall.Kill(group, syscall.SIGTERM) == nil {
		select {
		case <-p.done:
		case <-time.After(s.TimeoutStop):
		}
	}
	syscall.Kill(group, syscall.SIGKILL)
	for range p.done {
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
