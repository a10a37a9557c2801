//go:build !sim

package agent

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/state"
	"golang.org/x/sys/unix"
)

// Files of the link that are missing or damaged never end a service that runs. They are
// reported, and the node connects once they are repaired.
func TestFilesOfTheLinkThatAreDamaged(t *testing.T) {
	t.Parallel()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	tls.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})
	for name, damage := range map[string]func(path string) error{
		"missing":         func(string) error { return nil },
		"empty":           func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"no such text":    func(path string) error { return os.WriteFile(path, []byte("\x00\xff{"), 0o600) },
		"too long":        func(path string) error { return os.WriteFile(path, make([]byte, maxCAFile+1), 0o600) },
		"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":          func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a loop":          func(path string) error { return os.Symlink(path, path) },
		"a dangling link": func(path string) error { return os.Symlink(path+".none", path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			connected := make(chan struct{}, 9)
			c := rootWith(t, manager(t, func(p peer) {
				p.welcome()
				connected <- struct{}{}
				p.drain()
			}))
			c.Manager.CAFile = filepath.Join(t.TempDir(), "ca.pem")
			told := &lines{}
			c.Notify = func(s string) error { _, err := told.Write([]byte(s + "\n")); return err }
			l, err := state.At(c.Service.InstallRoot)
			if err == nil {
				err = errors.Join(damage(c.Manager.CAFile), damage(l.CredentialsFile()))
			}
			if err != nil {
				t.Fatal(err)
			}
			a, err := newOf(c)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- a.Run(ctx) }()
			repair := func(problem, path, text string) {
				t.Helper()
				wait(t, problem, func() bool { return strings.Contains(told.String(), problem) })
				if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, []byte(text), 0o600)); err != nil {
					t.Error(err)
				}
			}
			if name != "missing" { // without credentials the node registers
				repair("credentials", l.CredentialsFile(), `{"node_id":"n","node_secret":"s"}`)
			}
			repair("manager.ca_file", c.Manager.CAFile, string(ca))
			<-connected
			if s := told.String(); !strings.Contains(s, "READY=1") || strings.Contains(s, "STOPPING") {
				t.Errorf("systemd was told %s", s)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
