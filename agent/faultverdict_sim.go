//go:build sim

package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"golang.org/x/sys/unix"
)

// verdictFaults are faults of a version that its trial must find, besides those of
// injectFault. The text after the name is of the fault.
var verdictFaults = map[string]func(ctx context.Context, a *Agent, of string) error{
	"exits-with-0": func(context.Context, *Agent, string) error {
		os.Exit(0)
		return nil
	},
	// crashes-after DURATION
	"crashes-after": func(ctx context.Context, _ *Agent, of string) error {
		d, err := time.ParseDuration(of)
		time.AfterFunc(d, crash)
		return err
	},
	// takes-the-machine-down DURATION: the test that runs the machine waits for the file.
	"takes-the-machine-down": func(ctx context.Context, a *Agent, of string) error {
		d, err := time.ParseDuration(of)
		time.AfterFunc(d, func() {
			os.WriteFile(filepath.Join(a.c.Layout.Root(), "down"), nil, 0o644)
			unix.Kill(os.Getpid(), unix.SIGSTOP)
		})
		return err
	},
	"crashes-authenticated": func(ctx context.Context, a *Agent, _ string) error {
		go when(ctx, func() bool { a.tries.mu.Lock(); defer a.tries.mu.Unlock(); return !a.tries.up.IsZero() }, crash)
		return nil
	},
	// check-flaps DURATION: it passes for that long, then fails for that long.
	"check-flaps": func(_ context.Context, a *Agent, of string) error {
		d, err := time.ParseDuration(of)
		began := time.Now()
		a.c.Check = func(context.Context) error {
			if time.Since(began)/d%2 == 1 {
				return errors.New("simulated fault")
			}
			return nil
		}
		return err
	},
	"rejects-the-ca": func(_ context.Context, a *Agent, _ string) error {
		a.c.Certs, a.c.Keys = nil, [][sha256.Size]byte{{}}
		return nil
	},
	"cannot-resolve": func(_ context.Context, a *Agent, _ string) error {
		a.c.URLs = []string{"wss://name.invalid/ws/node"}
		return nil
	},
	"ignores-the-proxy": func(_ context.Context, a *Agent, _ string) error {
		c := a.c.Config
		c.Manager.Proxy = config.NewSecret("none")
		s, err := c.Resolve()
		s.Layout, s.Window, s.Hold = a.c.Layout, a.c.Window, a.c.Hold
		a.c.Settings = s
		return err
	},
	"destroys-credentials": func(_ context.Context, a *Agent, _ string) error {
		return os.WriteFile(a.c.Layout.CredentialsFile(), []byte(strings.Repeat("x", 100)), 0o600)
	},
	// It has no file left for a socket or a child, from its READY=1 on.
	"uses-up-files": func(ctx context.Context, a *Agent, _ string) error {
		a.c.URLs = []string{"wss://127.0.0.1:1/ws/node"}
		go when(ctx, func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.readySent }, useUpFiles)
		return nil
	},
}

func crash() { unix.Kill(os.Getpid(), unix.SIGKILL) }

// when calls do as soon as is returns true.
func when(ctx context.Context, is func() bool, do func()) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	do()
}

// useUpFiles opens files until there can be no more.
func useUpFiles() {
	limit := unix.Rlimit{Cur: 256, Max: 256}
	unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	for {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
	}
}
