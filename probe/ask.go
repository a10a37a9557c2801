package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
)

// A check that cannot tell whether the service is well says so with this exit status
// (EX_TEMPFAIL of sysexits.h) or HTTP status (Failed Dependency).
const (
	exitCannotTell = 75
	httpCannotTell = http.StatusFailedDependency
)

// maxWords bounds what an error has of a check's own words, in bytes.
const maxWords = 200

// clientFor returns a client that follows nothing and keeps nothing: a probe is of one
// address, now, and never through a proxy. Neither an old copy of the system's CA store nor
// a clock that is not set makes a service look ill.
func (c Clock) clientFor(u *url.URL) *http.Client {
	tr := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	if u.Scheme == "https" {
		tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		clock := cert.NewClock(nil, time.Time{}, "")
		if c != nil {
			clock = c()
		}
		cert.System().Client(tr.TLSClientConfig, clock, u.Hostname)
	}
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get asks a URL. key names it in errors.
func (c Clock) get(ctx context.Context, key, from string) answer {
	var connecting atomic.Bool
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart: func(string, string) { connecting.Store(true) },
	}), http.MethodGet, from, nil)
	if err != nil {
		return answer{trial.NotRun, fmt.Errorf("%s: %w", key, err)}
	}
	resp, err := c.clientFor(req.URL).Do(req)
	if err != nil {
		own := trial.Fails
		if !connecting.Load() || ofTheAgent(err) { // not connecting: the host's name has no address now
			own = trial.NotRun
		}
		return answer{own, fmt.Errorf("%s: %w", key, causeOf(ctx, err))}
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return answer{Own: trial.Passes}
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxWords)) // what came is enough
	a := answer{trial.Fails, withWords(fmt.Errorf("%s: %s answers %s", key, from, resp.Status), body)}
	if resp.StatusCode == httpCannotTell {
		a.Own = trial.CannotTell
	}
	return a
}

// ofTheAgent reports whether a connection failed in the agent, and not in what it asked:
// it got no socket, no memory, no local port, or no permission.
func ofTheAgent(err error) bool {
	call, ok := errors.AsType[*os.SyscallError](err)
	if !ok {
		return false
	}
	op, isDial := errors.AsType[*net.OpError](err)
	return isDial && op.Op == "dial" && (call.Syscall != "connect" || slices.ContainsFunc([]syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EAGAIN, syscall.EADDRNOTAVAIL, syscall.EPERM, syscall.EACCES,
	}, func(e syscall.Errno) bool { return errors.Is(call, e) }))
}

// command runs a program, without a shell, and without the agent's own environment:
// NOTIFY_SOCKET is not for it. key names it in errors.
func command(ctx context.Context, key string, args []string) answer {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	var out tail
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(""), &out, &out // a nil Stdin needs /dev/null
	// Not found, not executable, no memory, no process, no file.
	if err := cmd.Start(); err != nil {
		return answer{trial.NotRun, fmt.Errorf("%s: %w", key, causeOf(ctx, err))}
	}
	err := cmd.Wait()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // it exited 0, but left a process that has its output open
		return answer{Own: trial.Passes}
	}
	a := answer{trial.Fails, withWords(fmt.Errorf("%s: %w", key, causeOf(ctx, err)), out)}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == exitCannotTell {
		a.Own = trial.CannotTell
	}
	return a
}

// causeOf names the time limit, where that is what ended the probe.
func causeOf(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// withWords adds to err what a check said, in one line.
func withWords(err error, said []byte) error {
	words := release.Foreign(strings.Join(strings.Fields(string(said)), " "), maxWords)
	if words == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, words)
}

// tail keeps the last bytes that were written to it, maxWords of them.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if over := len(*t) - maxWords; over > 0 {
		*t = append((*t)[:0], (*t)[over:]...)
	}
	return len(p), nil
}
