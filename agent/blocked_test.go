//go:build !sim

package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/watchdog"
)

// A file of another kind (a FIFO, a socket), wherever the agent reads one, does not block
// the start.
func TestNothingBlocksTheStart(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(string) error{
		"FIFO":      func(p string) error { return syscall.Mkfifo(p, 0o644) },
		"directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"device":    func(p string) error { return os.Symlink("/dev/zero", p) },
		"loop":      func(p string) error { return os.Symlink(filepath.Base(p), p) },
	}
	for _, name := range []string{"trust/targets.json", "trust/trusted_root.json", "trust/1.root.json", "state.json", ".lock", ".agent.lock", "credentials.json", "watchdog.json", "outbox/0000000000000001-x.json", "downloads/x.unverified"} {
		for kind, make := range kinds {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				log := &lines{}
				c := rootWith(t, manager(t, func(p peer) { p.welcome(); p.drain() }))
				c.Log = logTo(log, slog.LevelDebug)
				path := filepath.Join(c.Service.InstallRoot, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), make(path)); err != nil {
					t.Fatal(err)
				}
				a, err := newOf(c)
				if err != nil {
					t.Fatal(err)
				}
				watchdog.Run(t.Context(), a.c.Layout)
				runAgent(t, c)
				wait(t, "ready", func() bool { return strings.Contains(log.String(), `"msg":"ready"`) })
				// Without its credentials a node runs, and cannot connect.
				if name != "credentials.json" {
					wait(t, "connected", func() bool { return strings.Contains(log.String(), "authenticated to the manager") })
				}
			})
		}
	}
}
