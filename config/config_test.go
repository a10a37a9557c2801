package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// valid returns a configuration that breaks no rule.
func valid(t *testing.T) Config {
	t.Helper()
	return Config{
		Service: Service{DeviceType: "edge", InstallRoot: t.TempDir()},
		Manager: Manager{URLs: []string{"wss://manager.example"}},
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := valid(t)
	c.Service.InstallRoot = ""
	r, err := c.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if r.Layout.Root() != "/opt/bilbycast/edge" || r.Window != 120*time.Second || r.Hold != 10*time.Second || r.DrainTime != 5*time.Second {
		t.Errorf("got %+v", r)
	}
	if r.Policy.Enabled || r.Policy.RollbackGrace != 1 || len(r.Policy.Channels) != 1 || r.Policy.Channels[0] != "stable" {
		t.Errorf("policy %+v", r.Policy)
	}
	if r.URLs[0] != "wss://manager.example"+wire.Path {
		t.Errorf("url %s", r.URLs[0])
	}
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	n := func(v int) *int { return &v }
	for want, change := range map[string]func(*Config){
		"service.device_type is missing":           func(c *Config) { c.Service.DeviceType = "" },
		"service.unit \"app\"":                     func(c *Config) { c.Service.Unit = "app" },
		"service.unit \"a b.service\"":             func(c *Config) { c.Service.Unit = "a b.service" },
		"health.http \"ftp://x/\"":                 func(c *Config) { c.Health.HTTP = "ftp://x/" },
		"health.command begins with \"true\"":      func(c *Config) { c.Health.Command = []string{"true"} },
		"health.timeout_secs = 10":                 func(c *Config) { c.Health.TimeoutSecs = 10 },
		"service.binary \"../sh\"":                 func(c *Config) { c.Service.Binary = "../sh" },
		"manager.urls is missing":                  func(c *Config) { c.Manager.URLs = nil },
		"manager.urls has 17 entries":              func(c *Config) { c.Manager.URLs = make([]string, 17) },
		"ws:// is only for a loopback address":     func(c *Config) { c.Manager.URLs = []string{"ws://10.0.0.1"}; c.Manager.AllowInsecure = true },
		"with allow_insecure = true":               func(c *Config) { c.Manager.URLs = []string{"ws://127.0.0.1"} },
		"is not like wss://":                       func(c *Config) { c.Manager.URLs = []string{"wss://user:hunter2@h"} },
		"manager.cert_fingerprint: \"abc\" is not": func(c *Config) { c.Manager.CertFingerprint = Pins{"abc"} },
		"upgrade.health_hold_secs = 120":           func(c *Config) { c.Upgrade.HealthHoldSecs = n(120) },
		"upgrade.keep_versions = 1":                func(c *Config) { c.Upgrade.KeepVersions = 1 },
		"upgrade.drain_secs = -1":                  func(c *Config) { c.Upgrade.DrainSecs = n(-1) },
		"upgrade.download_retry_secs = 59":         func(c *Config) { c.Upgrade.DownloadRetrySecs = 59 },
		"upgrade.download_retry_secs = 2592001":    func(c *Config) { c.Upgrade.DownloadRetrySecs = 2592001 },
		"upgrade.boot_health_window_secs = 86401":  func(c *Config) { c.Upgrade.BootHealthWindowSecs = 86401 },
	} {
		c := valid(t)
		change(&c)
		if _, err := c.Resolve(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// What get_config returns holds no secret.
func TestConfigAsJSONHoldsNoSecret(t *testing.T) {
	t.Parallel()
	c := valid(t)
	c.Manager.RegistrationToken = NewSecret("hunter2")
	b, err := json.Marshal(c)
	if err != nil || strings.Contains(string(b), "hunter2") {
		t.Errorf("%s, %v", b, err)
	}
}

func TestProxyOfTheConfiguration(t *testing.T) {
	t.Parallel()
	for proxy, ok := range map[string]bool{"": true, "none": true, "http://p:3128": true, "socks5://127.0.0.1:1080": true, "ftp://p": false, "p:3128": false, "http://": false} {
		c := Config{Service: Service{DeviceType: "edge"}, Manager: Manager{URLs: []string{"wss://m"}, Proxy: NewSecret(proxy)}}
		if _, err := c.Resolve(); (err == nil) != ok {
			t.Errorf("%q: %v", proxy, err)
		}
	}
}

func TestLoadRefusesAnUnknownSection(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("[helth]\nhttp = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), `line 1: unknown key "helth"`) {
		t.Errorf("got %v", err)
	}
}

func TestBandwidth(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{"": 0, "500KiB/s": 500 << 10, "2MB/s": 2e6, "1024B/s": 1024, "1GiB/s": 1 << 30} {
		if got, err := bandwidth(s); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"1", "500", "1KiB", "-1KiB/s", "1.5MB/s", "1000B/s", "MB/s", "2mb/s", "2M/s", "9999999GiB/s", "/s"} {
		if got, err := bandwidth(s); err == nil {
			t.Errorf("%q is parsed as %d", s, got)
		}
	}
}

// The program that a version must have is the one that the file names: a default may be
// the name of a copy of edge-agent, by which no version would be installed.
func TestOnlyANamedProgramIsRequired(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{false, true} {
		c := valid(t)
		if named {
			c.Service.Binary = "edge"
		}
		s, err := c.Resolve()
		if err != nil {
			t.Fatal(err)
		}
		v := release.MustVersion("1.0.0")
		if err := os.MkdirAll(s.Layout.Version(v), 0o755); err != nil {
			t.Fatal(err)
		}
		tree, err := s.Layout.Tree()
		if err != nil || tree.Has(v) == named {
			t.Errorf("named %t: %+v, %v", named, tree, err)
		}
	}
}
