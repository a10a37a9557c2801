//go:build !sim

package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
	"github.com/bilbycast/edge-agent/wire"
)

// opened gives n a registered root with the text of its config.toml, and returns n as
// config.Open reads it.
func opened(t *testing.T, n node, text string) node {
	t.Helper()
	l := layoutOf(t, n)
	if err := errors.Join(os.WriteFile(l.CredentialsFile(), []byte(`{"node_id":"n","node_secret":"s"}`), 0o600), os.WriteFile(l.ConfigFile(), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return reopened(t, n)
}

func reopened(t *testing.T, n node) node {
	t.Helper()
	s, w, err := config.Open(layoutOf(t, n).ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	n.Config, n.Warnings = s.Config, w
	return n
}

func layoutOf(t *testing.T, n node) state.Layout {
	t.Helper()
	l, err := state.At(n.Service.InstallRoot)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fileOf is a config.toml of n that breaks no rule.
func fileOf(n node, url string) string {
	return "[service]\ndevice_type = \"edge\"\ninstall_root = \"" + n.Service.InstallRoot + "\"\nbinary = \"edge\"\nunit = \"" + n.Service.Unit + "\"\n[manager]\nurls = [\"" + url +
		"\"]\nallow_insecure = true\nproxy = \"none\"\nregistration_token = \"hunter2\"\n[upgrade]\nenabled = true\ndrain_secs = 0\n"
}

// healthOf serves sessions, and returns the first health message of each.
func healthOf(t *testing.T) (url string, health chan *wire.Health) {
	t.Helper()
	health = make(chan *wire.Health, 10)
	return manager(t, func(p peer) {
		p.welcome()
		h, _ := p.until("health", func(m wire.Message) bool { _, ok := m.(*wire.Health); return ok }).(*wire.Health)
		health <- h
		p.drain()
	}), health
}

// With each damaged config.toml a registered node is ready and connected. It withholds
// upgrades for the reason that it names, and only then. Nothing that it logs or reports is
// a secret.
func TestARegisteredNodeRunsWithEveryConfiguration(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change       func(path, text string) error
		reason, said string
	}{
		"key of a newer version":   {func(p, s string) error { return os.WriteFile(p, []byte(s+"windows = [\"Mon\"]\n"), 0o600) }, "upgrade.windows", "upgrades are not possible because of config.toml"},
		"key of no protection":     {func(p, s string) error { return os.WriteFile(p, []byte(s+"[health]\ncolour = 1\n"), 0o600) }, "", `unknown key \"health.colour\"`},
		"no TOML":                  {func(p, s string) error { return os.WriteFile(p, []byte(s+"[upgrade\n"), 0o600) }, "copy of the last valid file", "copy of the last valid file"},
		"a broken rule":            {func(p, s string) error { return os.WriteFile(p, []byte(s+"keep_versions = 1\n"), 0o600) }, "keep_versions = 1", "copy of the last valid file"},
		"another type":             {func(p, s string) error { return os.WriteFile(p, []byte(s+"keep_versions = \"1\"\n"), 0o600) }, "keep_versions must be", "copy of the last valid file"},
		"empty":                    {func(p, _ string) error { return os.Truncate(p, 0) }, "device_type", "copy of the last valid file"},
		"removed":                  {func(p, _ string) error { return os.Remove(p) }, "no such file", "copy of the last valid file"},
		"FIFO":                     {func(p, _ string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o600)) }, "not a regular file", "copy of the last valid file"},
		"readable for everyone":    {func(p, _ string) error { return os.Chmod(p, 0o644) }, "", "mode restricted to 0600"},
		"writable for everyone":    {func(p, _ string) error { return os.Chmod(p, 0o666) }, "", "mode restricted to 0600"},
		"nothing is wrong with it": {func(string, string) error { return nil }, "", "authenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, health := healthOf(t)
			log := &lines{}
			c := rootWith(t, url)
			c.Log = logTo(log, slog.LevelDebug)
			l := layoutOf(t, c)
			text := fileOf(c, url)
			c = opened(t, c, text)
			start := func() (*wire.Health, func()) {
				a, err := newOf(c)
				if err != nil {
					t.Fatal(err)
				}
				watchdog.Run(t.Context(), l)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- a.Run(ctx) }()
				return <-health, func() {
					cancel()
					if err := <-done; err != nil {
						t.Errorf("the agent ends: %v", err)
					}
				}
			}
			h, stop := start()
			wait(t, "the copy", func() bool { b, err := os.ReadFile(l.AcceptedConfig()); return err == nil && string(b) == text })
			stop()
			if h.UpgradeUnavailable != "" {
				t.Fatalf("before: %s", h.UpgradeUnavailable)
			}
			if st, err := os.Stat(l.AcceptedConfig()); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("the copy: %v, %v", st.Mode(), err)
			}
			if err := tt.change(l.ConfigFile(), text); err != nil {
				t.Fatal(err)
			}
			c = reopened(t, c)
			h, stop = start()
			stop()
			if !strings.Contains(h.UpgradeUnavailable, tt.reason) || (h.UpgradeUnavailable == "") != (tt.reason == "") || (len(h.Capabilities) == 0) != (tt.reason != "") {
				t.Errorf("health: %q, %q; want %q", h.UpgradeUnavailable, h.Capabilities, tt.reason)
			}
			if !strings.Contains(log.String(), tt.said) || strings.Count(log.String(), `"msg":"ready"`) != 2 || strings.Contains(log.String()+h.UpgradeUnavailable, "hunter2") {
				t.Errorf("want %q; log: %s", tt.said, log)
			}
			if st, err := os.Stat(l.ConfigFile()); err == nil && st.Mode().IsRegular() && st.Mode().Perm() != 0o600 {
				t.Errorf("mode %04o", st.Mode().Perm())
			}
		})
	}
}

// An attached agent does the same: it is ready, keeps the copy, and withholds upgrades.
func TestAnAttachedNodeRunsWithEveryConfiguration(t *testing.T) {
	t.Parallel()
	url, health := healthOf(t)
	c := rootWith(t, url)
	c.Service.Unit = "app.service"
	l := layoutOf(t, c)
	text := fileOf(c, url)
	c = opened(t, c, text)
	ready := make(chan string, 10)
	c.Notify = func(s string) error {
		if s == "READY=1" {
			ready <- s
		}
		return nil
	}
	u := fakeUnit{}
	for _, want := range []string{"", "upgrade.windows", "copy of the last valid file"} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Attend(ctx, c.Config, c.Options, u) }()
		<-ready
		h := <-health
		wait(t, "the copy", func() bool { _, err := os.Stat(l.AcceptedConfig()); return err == nil })
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(h.UpgradeUnavailable, want) || (h.UpgradeUnavailable == "") != (want == "") {
			t.Errorf("health %q, want %q", h.UpgradeUnavailable, want)
		}
		more := "windows = 1\n"
		if want != "" {
			more = "[upgrade\n"
		}
		if err := os.WriteFile(l.ConfigFile(), []byte(text+more), 0o600); err != nil {
			t.Fatal(err)
		}
		c = reopened(t, c)
	}
}

// A version on trial does not replace the copy: the version that a rollback returns to
// must understand it. Once it has proved healthy it does.
func TestAVersionOnTrialKeepsNoConfiguration(t *testing.T) {
	t.Parallel()
	for _, healthy := range []bool{false, true} {
		c := bareNode(t)
		l, _ := trialRoot(t, c.Service.InstallRoot, 3)
		if err := os.WriteFile(l.AcceptedConfig(), []byte("of the old version"), 0o600); err != nil {
			t.Fatal(err)
		}
		res, err := l.Read()
		if err != nil {
			t.Fatal(err)
		}
		c.Version, c.Warnings.Accepted = res.State.Target.String(), config.NewSecret("of the new version")
		c.Upgrade.BootHealthWindowSecs = 10
		c.Manager = config.Manager{URLs: []string{"ws://127.0.0.1:1"}, AllowInsecure: true, RegistrationToken: config.NewSecret("t"), Proxy: config.NewSecret("none")}
		c.Check = func(context.Context) error { return nil }
		synctest.Test(t, func(t *testing.T) {
			a, err := newOf(c)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			run := func() error { return a.Run(ctx) } // no manager is there
			if healthy {
				a.setAuthenticated(true)
				run = func() error { return a.runTrial(ctx, res, time.Now()) }
			}
			if err := run(); (err == nil) != healthy {
				t.Errorf("healthy %t: %v", healthy, err)
			}
		})
		want := "of the old version"
		if healthy {
			want = "of the new version"
		}
		if b, err := os.ReadFile(l.AcceptedConfig()); err != nil || string(b) != want {
			t.Errorf("healthy %t: the copy is %q, %v", healthy, b, err)
		}
	}
}

// A damaged file costs what the file is for: the service is ready with each of them, and
// connected unless the file is needed for that. Once ca_file is repaired, the same
// process connects.
func TestADamagedFileCostsWhatItIsFor(t *testing.T) {
	t.Parallel()
	junk := make([]byte, 600)
	rand.Read(junk)
	damages := map[string]func(string) error{
		"missing": func(p string) error {
			if err := os.Remove(p); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		},
		"empty":     func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"zeros":     func(p string) error { return os.WriteFile(p, make([]byte, 512), 0o600) },
		"junk":      func(p string) error { return os.WriteFile(p, junk, 0o600) },
		"null":      func(p string) error { return os.WriteFile(p, []byte("null"), 0o600) },
		"cut off":   func(p string) error { return os.WriteFile(p, []byte(`{"node_id":"n","no`), 0o600) },
		"too large": func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, 1<<30)) },
		"FIFO":      func(p string) error { os.Remove(p); return syscall.Mkfifo(p, 0o600) },
	}
	for _, name := range []string{"credentials.json", "ca.pem", "watchdog.json", "trust/targets.json", "trust/trusted_root.json", "trust/1.root.json", "config.toml.accepted"} {
		for kind, damage := range damages {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				needed := name == "ca.pem" || name == "credentials.json" && kind != "missing"
				log := &lines{}
				url := manager(t, func(p peer) { p.welcome(); p.drain() })
				c := rootWith(t, url)
				c.Log = logTo(log, slog.LevelDebug)
				l := layoutOf(t, c)
				path := filepath.Join(l.Root(), name)
				text := fileOf(c, url)
				if name == "ca.pem" {
					text = strings.Replace(text, "[upgrade]", "ca_file = \""+path+"\"\n[upgrade]", 1)
				}
				c = opened(t, c, text)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), damage(path)); err != nil {
					t.Fatal(err)
				}
				runAgent(t, c)
				wait(t, "ready", func() bool { return strings.Contains(log.String(), `"msg":"ready"`) })
				connected := func() bool { return strings.Contains(log.String(), "authenticated to the manager") }
				if !needed {
					wait(t, "connected", connected)
					return
				}
				wait(t, "the reason", func() bool { return strings.Contains(log.String(), "not connected to the manager") })
				if !strings.Contains(log.String(), path) {
					t.Errorf("the log does not name the file: %s", log)
				}
				if name != "ca.pem" {
					return
				}
				fresh := path + ".new"
				ca, _ := authority(t, "manager")
				if err := errors.Join(os.WriteFile(fresh, ca, 0o600), os.Rename(fresh, path)); err != nil {
					t.Fatal(err)
				}
				wait(t, "connected", connected)
			})
		}
	}
}
