package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

func config(t *testing.T) Config {
	t.Helper()
	return Config{
		Service: ServiceConfig{DeviceType: "edge", InstallRoot: t.TempDir()},
		Manager: ManagerConfig{URLs: []string{"wss://manager.example"}},
		Version: "1.0.0",
		Notify:  func(string) error { return nil },
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := config(t)
	c.Service.InstallRoot = ""
	r, err := c.resolve()
	if err != nil {
		t.Fatal(err)
	}
	if r.layout.Root() != "/opt/bilbycast/edge" || r.window != 120*time.Second || r.hold != 10*time.Second || r.drain != 5*time.Second {
		t.Errorf("got %+v", r)
	}
	if r.policy.Enabled || r.policy.RollbackGrace != 1 || len(r.policy.Channels) != 1 || r.policy.Channels[0] != "stable" {
		t.Errorf("policy %+v", r.policy)
	}
	if r.urls[0] != "wss://manager.example"+wire.Path {
		t.Errorf("url %s", r.urls[0])
	}
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	n := func(v int) *int { return &v }
	for want, change := range map[string]func(*Config){
		"Version: version \"dev\" is not":          func(c *Config) { c.Version = "dev" },
		"service.device_type is missing":           func(c *Config) { c.Service.DeviceType = "" },
		"service.unit \"app\"":                     func(c *Config) { c.Service.Unit = "app" },
		"service.unit \"a b.service\"":             func(c *Config) { c.Service.Unit = "a b.service" },
		"health.http \"ftp://x/\"":                 func(c *Config) { c.Health.HTTP = "ftp://x/" },
		"health.command [\"true\"]":                func(c *Config) { c.Health.Command = []string{"true"} },
		"health.timeout_secs = 10":                 func(c *Config) { c.Health.TimeoutSecs = 10 },
		"service.binary \"../sh\"":                 func(c *Config) { c.Service.Binary = "../sh" },
		"manager.urls has 0 entries":               func(c *Config) { c.Manager.URLs = nil },
		"ws:// is only for a loopback address":     func(c *Config) { c.Manager.URLs = []string{"ws://10.0.0.1"}; c.Manager.AllowInsecure = true },
		"with allow_insecure = true":               func(c *Config) { c.Manager.URLs = []string{"ws://127.0.0.1"} },
		"is not like wss://":                       func(c *Config) { c.Manager.URLs = []string{"wss://user:hunter2@h"} },
		"manager.cert_fingerprint: \"abc\" is not": func(c *Config) { c.Manager.CertFingerprint = Pins{"abc"} },
		"upgrade.health_hold_secs = 120":           func(c *Config) { c.Upgrade.HealthHoldSecs = n(120) },
		"upgrade.keep_versions = 1":                func(c *Config) { c.Upgrade.KeepVersions = 1 },
		"upgrade.drain_secs = -1":                  func(c *Config) { c.Upgrade.DrainSecs = n(-1) },
		"upgrade.boot_health_window_secs = 86401":  func(c *Config) { c.Upgrade.BootHealthWindowSecs = 86401 },
	} {
		c := config(t)
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestUnderTypeNotifyNotifyMustBeSet(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/x")
	c := config(t)
	c.Notify = nil
	if _, err := c.resolve(); err == nil || !strings.Contains(err.Error(), "set it to systemd.Notify") {
		t.Errorf("got %v", err)
	}
}

// What get_config returns holds no secret.
func TestConfigAsJSONHoldsNoSecret(t *testing.T) {
	t.Parallel()
	c := config(t)
	c.Manager.RegistrationToken = "hunter2"
	b, err := json.Marshal(c)
	if err != nil || strings.Contains(string(b), "hunter2") {
		t.Errorf("%s, %v", b, err)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := loadCredentials(l); err != nil || c.NodeID != "" {
		t.Errorf("none yet: %+v, %v", c, err)
	}
	want := credentials{"node", "hunter2"}
	if err := saveCredentials(t.Context(), l, want); err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(l.CredentialsFile()); st.Mode() != fs.FileMode(0o600) {
		t.Errorf("mode %v", st.Mode())
	}
	if c, err := loadCredentials(l); err != nil || c != want {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, damaged := range []string{"", "{", `{"node_id":"x"}`, `{"node_secret":"hunter2"`} {
		if err := os.WriteFile(l.CredentialsFile(), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadCredentials(l); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "is damaged; remove it") {
			t.Errorf("%q: %v", damaged, err)
		}
	}
}

func TestErrorsForTheManagerAreBounded(t *testing.T) {
	t.Parallel()
	code, why := coded(release.Errorf(release.DiskFull, "%s", strings.Repeat("é", 5000)))
	if code != release.DiskFull || len(why) > wire.MaxText || strings.ContainsRune(why, '\uFFFD') {
		t.Errorf("%s, %d bytes", code, len(why))
	}
	if code, _ := coded(errors.New("x")); code != release.Internal {
		t.Error(code)
	}
}

// A manager that says that it has a problem is told from one that refuses.
func TestBusyManagers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		header string
		busy   bool
		after  time.Duration
	}{
		{503, "7", true, 7 * time.Second},
		{429, "", true, 0},
		{500, "soon", true, 0},
		{503, "99999999999", true, 0},
		{503, "999999", true, maxRetryAfter},
		{403, "7", false, 0},
		{200, "", false, 0},
	} {
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", tt.header)
			w.WriteHeader(tt.status)
		}))
		_, err := dial(t.Context(), websocket.DefaultDialer, "ws"+strings.TrimPrefix(host.URL, "http"))
		host.Close()
		var busy *busyError
		if got := errors.As(err, &busy); err == nil || got != tt.busy {
			t.Errorf("%d: %v", tt.status, err)
		} else if got && tt.header != "99999999999" && busy.retryAfter != tt.after {
			t.Errorf("%d, Retry-After %q: %v", tt.status, tt.header, busy.retryAfter)
		}
	}
}

// A manager is believed by its pinned certificate, or by a CA; without either,
// one that nobody vouches for is not.
func TestAnotherManagersCertificateIsRefused(t *testing.T) {
	t.Parallel()
	right := httptest.NewTLSServer(http.NotFoundHandler())
	defer right.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: right.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := func(b []byte) string { x := sha256.Sum256(b); return hex.EncodeToString(x[:]) }
	cert, key := sum(right.Certificate().Raw), sum(right.Certificate().RawSubjectPublicKeyInfo)
	other := strings.Repeat("5a", 32)
	for _, tt := range []struct {
		name string
		m    ManagerConfig
		want string // "": the handshake is done, and the manager answers 404
	}{
		{"its pin", ManagerConfig{CertFingerprint: Pins{cert}}, ""},
		{"several pins, one is its", ManagerConfig{CertFingerprint: Pins{other, strings.ToUpper(cert)}}, ""},
		{"the pin of its key", ManagerConfig{KeyFingerprint: Pins{key}}, ""},
		{"another pin, and that of its key", ManagerConfig{CertFingerprint: Pins{other}, KeyFingerprint: Pins{other, key}}, ""},
		{"another pin", ManagerConfig{CertFingerprint: Pins{other}}, "if the certificate was replaced"},
		{"the key's hash as the certificate's", ManagerConfig{CertFingerprint: Pins{key}}, "has the SHA-256 " + cert},
		{"the certificate's hash as the key's", ManagerConfig{KeyFingerprint: Pins{cert}}, "and its key " + key},
		{"another pin, and accept_self_signed_cert", ManagerConfig{CertFingerprint: Pins{other}, AcceptSelfSignedCert: true}, "neither is pinned"},
		{"its CA", ManagerConfig{CAFile: ca}, ""},
		{"nobody", ManagerConfig{}, "set manager.ca_file to the CA that signed the manager's certificate, or manager.cert_fingerprint"},
	} {
		c := config(t)
		tt.m.URLs, tt.m.Proxy = []string{"wss" + strings.TrimPrefix(right.URL, "https")}, "none"
		c.Manager = tt.m
		r, err := c.resolve()
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.dialer()
		if err != nil {
			t.Fatal(err)
		}
		want := tt.want
		if want == "" {
			want = "404"
		}
		if _, err := dial(t.Context(), d, tt.m.URLs[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", tt.name, err, want)
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
			t.Errorf("%q is taken as %d", s, got)
		}
	}
}

func TestProxyOfTheConfiguration(t *testing.T) {
	t.Parallel()
	for proxy, ok := range map[string]bool{"": true, "none": true, "http://p:3128": true, "socks5://127.0.0.1:1080": true, "ftp://p": false, "p:3128": false, "http://": false} {
		c := Config{Service: ServiceConfig{DeviceType: "edge"}, Manager: ManagerConfig{URLs: []string{"wss://m"}, Proxy: proxy}}
		if _, err := Check(c); (err == nil) != ok {
			t.Errorf("%q: %v", proxy, err)
		}
	}
}

// docs/config.md has every key, and no other.
func TestEveryKeyIsDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	sections := reflect.TypeFor[Config]()
	for i := range sections.NumField() {
		section := sections.Field(i)
		if section.Tag.Get("toml") == "-" {
			continue
		}
		for j := range section.Type.NumField() {
			want = append(want, section.Tag.Get("toml")+"."+section.Type.Field(j).Tag.Get("toml"))
		}
	}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+\\.[a-z_]+)`").FindAllSubmatch(doc, -1) {
		got = append(got, string(m[1]))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("docs/config.md has %q, want %q", got, want)
	}
}
