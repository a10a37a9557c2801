package install

import (
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/systemd"
)

// node returns a doctor for a node of the manager at url.
func node(t *testing.T, url string) *doctor {
	t.Helper()
	root := t.TempDir()
	l, err := state.At(root)
	if err != nil {
		t.Fatal(err)
	}
	d := &doctor{config: root + "/config.toml", l: l, unit: "edge.service", agent: "edge.service", user: uint32(os.Geteuid())}
	d.c.Service = config.Service{Name: "edge", DeviceType: "edge", InstallRoot: root, Binary: "edge-agent"}
	d.c.Manager.URLs, d.c.Manager.RegistrationToken, d.c.Manager.Proxy = []string{url}, config.NewSecret("t"), config.NewSecret("none")
	return d
}

// A dependency that does not answer keeps the node from upgrades. One that is not set is
// not asked.
func TestDoctorAsksTheDependency(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		dependency config.Dependency
		want       []Finding
	}{
		"none":     {},
		"answers":  {config.Dependency{"/bin/true"}, []Finding{{What: "dependency", OK: true}}},
		"does not": {config.Dependency{"/bin/sh", "-c", "echo no route to db; exit 2"}, []Finding{{What: "dependency", Cause: "health.dependency: exit status 2: no route to db; the node refuses upgrades until it answers"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := node(t, "wss://m")
			d.c.Health = config.Health{Dependency: tt.dependency, TimeoutSecs: 9}
			d.dependency(t.Context())
			if len(d.findings) != len(tt.want) || len(tt.want) > 0 && (d.findings[0].What != tt.want[0].What || d.findings[0].OK != tt.want[0].OK || d.findings[0].Cause != tt.want[0].Cause) {
				t.Errorf("found %+v, want %+v", d.findings, tt.want)
			}
			if len(d.findings) > 0 && !d.findings[0].OK && !strings.Contains(d.findings[0].Remedy, "correct health.dependency in "+d.config) {
				t.Errorf("remedy %q", d.findings[0].Remedy)
			}
		})
	}
}

// Each fault of the link has a cause, and a remedy that names the setting.
func TestDoctorManager(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	wss := "wss" + strings.TrimPrefix(s.URL, "https")
	pin := fmt.Sprintf("%x", sha256.Sum256(s.Certificate().Raw))
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	since := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		change        func(*doctor)
		cause, remedy string
	}{
		"authority":   {func(*doctor) {}, "unknown authority", "ca_file (the PEM of a private CA), or cert_fingerprint"},
		"pin":         {func(d *doctor) { d.c.Manager.CertFingerprint = config.Pins{strings.Repeat("ab", 32)} }, "neither is pinned", "set cert_fingerprint"},
		"path":        {func(d *doctor) { d.c.Manager.CertFingerprint = config.Pins{pin} }, "404", "that server is no manager"},
		"port":        {func(d *doctor) { d.c.Manager.URLs = []string{"wss://" + closed.Addr().String()} }, "connection refused", "correct the port"},
		"no TLS":      {func(d *doctor) { d.c.Manager.URLs = []string{"wss" + strings.TrimPrefix(plain.URL, "http")} }, "TLS handshake", "the port answers without TLS"},
		"DNS":         {func(d *doctor) { d.c.Manager.URLs = []string{"wss://manager.invalid"} }, "manager.invalid", "DNS"},
		"never":       {func(*doctor) {}, "this node has never registered", "ca_file"},
		"no token":    {func(d *doctor) { d.c.Manager.RegistrationToken = config.Secret{} }, "has no token", "set registration_token"},
		"proxy":       {func(d *doctor) { d.c.Manager.Proxy = config.NewSecret("http://" + closed.Addr().String()) }, "connection refused", "correct proxy"},
		"by its name": {func(d *doctor) { d.c.Manager.URLs = []string{strings.Replace(wss, "127.0.0.1", "localhost", 1)} }, "x509", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := node(t, wss)
			tt.change(d)
			d.manager(t.Context())
			if len(d.findings) != 1 || d.findings[0].OK || !strings.Contains(d.findings[0].Cause, tt.cause) || !strings.Contains(d.findings[0].Remedy, tt.remedy) {
				t.Errorf("found %+v, want %q, %q", d.findings, tt.cause, tt.remedy)
			}
		})
	}
	// The report of the service decides where a connection succeeds, as a token cannot be tried.
	d := node(t, wss)
	d.state = systemd.State{Active: "active", Text: agent.Connection{Connected: true, URL: wss, Since: since}.String()}
	d.manager(t.Context())
	if len(d.findings) != 1 || !d.findings[0].OK {
		t.Errorf("connected: %+v", d.findings)
	}
	d = node(t, wss)
	d.c.Manager.URLs, d.c.Manager.RegistrationToken = []string{}, config.Secret{}
	d.manager(t.Context())
	if len(d.findings) != 1 || !d.findings[0].OK || d.findings[0].What != "manager (no manager configured)" {
		t.Errorf("without a manager: %+v", d.findings)
	}
	for problem, want := range map[string]string{
		`the manager refuses this node: "unknown token"`:                                       "get a new token",
		"tls: failed to verify certificate: x509: certificate has expired or is not yet valid": "renew the manager's certificate",
		"x509: certificate is valid for a, not b":                                              "use a name in urls",
		"dial tcp: i/o timeout":                                                                "does not answer",
		"the manager answers 503 Service Unavailable":                                          "see its log",
		"the manager answers 429 Too Many Requests":                                            "is busy",
		"dial: connect: network is unreachable":                                                "no route",
		"something new":                                                                        "journalctl -u edge.service",
	} {
		if got := d.remedyOf(problem); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %q", problem, got, want)
		}
	}
}

func TestDoctorFiles(t *testing.T) {
	t.Parallel()
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
	for name, tt := range map[string]struct {
		change               func(d *doctor) error
		check, cause, remedy string
	}{
		"well":            {func(d *doctor) error { return nil }, "", "", ""},
		"ca_file missing": {func(d *doctor) error { d.c.Manager.CAFile = "/nonexistent.pem"; return nil }, "ca_file", "no such file", "correct manager.ca_file"},
		"ca_file empty": {func(d *doctor) error {
			d.c.Manager.CAFile = d.l.Root() + "/ca"
			return os.WriteFile(d.c.Manager.CAFile, nil, 0o644)
		}, "ca_file", "no certificate", "put the PEM"},
		"ca_file good": {func(d *doctor) error {
			d.c.Manager.CAFile = d.l.Root() + "/ca"
			return os.WriteFile(d.c.Manager.CAFile, []byte(cert), 0o644)
		}, "", "", ""},
		"ca_file hidden": {func(d *doctor) error {
			d.state = systemd.State{Load: "loaded", PrivateTmp: true}
			d.c.Manager.CAFile = d.l.Root() + "/ca"
			return os.WriteFile(d.c.Manager.CAFile, []byte(cert), 0o644)
		}, "ca_file", "sandbox hides /tmp", "put it elsewhere"},
		"program missing": {func(d *doctor) error { return os.Remove(d.l.Root() + "/versions/1.0.0/edge-agent") }, "program", "is missing", "restore the file"},
		"program not +x":  {func(d *doctor) error { return os.Chmod(d.l.Root()+"/versions/1.0.0/edge-agent", 0o644) }, "program", "not executable", "chmod 755"},
		"program directory": {func(d *doctor) error {
			p := d.l.Root() + "/versions/1.0.0/edge-agent"
			os.Remove(p)
			return os.Mkdir(p, 0o755)
		}, "program", "not a regular file", "restore"},
		"trust": {func(d *doctor) error {
			os.Mkdir(d.l.TrustDir(), 0o755)
			return os.WriteFile(d.l.TrustDir()+"/targets.json", []byte("{}"), 0o644)
		}, "trust", "is not used", "edge-agent trust update"},
		"a clock that is not set": {func(d *doctor) error {
			return os.WriteFile(d.l.Root()+"/versions/1.0.0/.release.json", []byte(`{"version":"1.0.0","signed_at":"2190-01-01T00:00:00Z"}`), 0o644)
		}, "clock", "is not set", "timedatectl"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := node(t, "wss://m:1")
			tree(t, d.l.Root(), "config.toml", "versions/1.0.0/edge-agent", "current -> versions/1.0.0", "last-good -> versions/1.0.0")
			if err := os.Chmod(filepath.Join(d.l.Root(), "versions/1.0.0/edge-agent"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tt.change(d); err != nil {
				t.Fatal(err)
			}
			d.readable()
			d.program(t.Context())
			d.trust()
			d.clock()
			var bad []Finding
			for _, f := range d.findings {
				if !f.OK {
					bad = append(bad, f)
				}
			}
			if tt.check == "" && bad == nil {
				return
			}
			if len(bad) != 1 || bad[0].What != tt.check || !strings.Contains(bad[0].Cause, tt.cause) || !strings.Contains(bad[0].Remedy, tt.remedy) {
				t.Errorf("found %+v, want %q: %q, %q", bad, tt.check, tt.cause, tt.remedy)
			}
		})
	}
}

// Without a valid configuration doctor checks what it can, and reports the configuration.
func TestDoctorWithoutConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for text, want := range map[string]string{"": "no such file", "[": "line 1", "[service]\nx = 1\n": "line 2"} {
		path := filepath.Join(dir, "config.toml")
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			os.Remove(path)
		}
		f := Doctor(t.Context(), path)
		if len(f) != 1 || f[0].What != "configuration" || f[0].OK || !strings.Contains(f[0].Problem, want) || Well(f) {
			t.Errorf("%q: %+v", text, f)
		}
	}
}

// Doctor names the directory above the root that the service's user may not enter, with
// the command that changes it, and not the file below.
func TestDoctorBlockedDirectory(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	path := filepath.Join(parent, "root", "config.toml")
	tree(t, parent, "root/config.toml")
	st, err := os.Stat(parent)
	if err != nil {
		t.Fatal(err)
	}
	owner, _, _ := ownerIDs(st)
	for _, dir := range []string{parent, filepath.Dir(parent)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const other = 65533
	if dir, remedy := blocked("config.toml", uint32(os.Geteuid())); dir != "" || remedy != "" { // a relative path
		t.Errorf("blocked by %q, %q", dir, remedy)
	}
	if dir, remedy := blocked(path, other); dir != "" || remedy != "" {
		t.Errorf("open: %s, %s", dir, remedy)
	}
	if err := os.Chmod(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	if dir, remedy := blocked(path, other); dir != parent+" (mode 0700)" || remedy != "run: chmod o+x "+parent {
		t.Errorf("closed: %s, %s", dir, remedy)
	}
	if owner == other {
		t.Fatal("the test needs another user")
	}
	d := node(t, "wss://m:1")
	d.config, d.user = path, other
	d.readable()
	if f := d.findings[0]; f.OK || !strings.Contains(f.Cause, "may not enter "+parent) || f.Remedy != "run: chmod o+x "+parent {
		t.Errorf("%+v", f)
	}
}

// On a registered node doctor names what is wrong with config.toml, and makes its other
// checks all the same.
func TestDoctorOfARegisteredNode(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		more          string
		mode          os.FileMode
		cause, remedy string // "": there is no problem
	}{
		"good":             {"", 0o600, "", ""},
		"an ignored key":   {"[health]\ncolour = 1\n", 0o600, `unknown key "health.colour"; this version ignores it`, "remove or correct the key"},
		"a protection":     {"windows = 1\n", 0o600, `unknown key "upgrade.windows"; it may be a protection, so this version refuses upgrades`, "remove or correct it, or run a version that knows it"},
		"no TOML":          {"[upgrade\n", 0o600, "runs with a copy of the last valid file, and refuses upgrades", "edge-agent config check"},
		"a broken rule":    {"keep_versions = 1\n", 0o600, "keep_versions = 1", "edge-agent config check"},
		"readable for all": {"", 0o644, "others may read its secrets (mode 0644)", "chmod 600"},
		"of a group":       {"", 0o640, "others may read its secrets (mode 0640)", "chmod 600"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := state.At(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			text := "[service]\ndevice_type = \"edge\"\ninstall_root = \"" + l.Root() + "\"\n[manager]\nurls = [\"wss://m\"]\nregistration_token = \"t\"\n[upgrade]\nenabled = true\n"
			for path, text := range map[string]string{l.CredentialsFile(): "{}", l.AcceptedConfig(): text, l.ConfigFile(): text + tt.more} {
				if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(l.ConfigFile(), tt.mode); err != nil {
				t.Fatal(err)
			}
			d := &doctor{config: l.ConfigFile()}
			if !d.configuration() || d.c.Service.InstallRoot != l.Root() {
				t.Fatalf("doctor ends here: %+v", d.findings)
			}
			found := false
			for _, f := range d.findings {
				found = found || strings.Contains(f.Cause, tt.cause) && strings.Contains(f.Remedy, tt.remedy)
			}
			if !found || Well(d.findings) != (tt.cause == "") {
				t.Errorf("found %+v, want %q: %q", d.findings, tt.cause, tt.remedy)
			}
			if notes := strings.Join(ConfigNotes(l.Root()), "\n"); (notes == "") != (tt.cause == "") {
				t.Errorf("status notes %q", notes)
			}
			if unit, err := UnitOf(l.Root()); err != nil || unit != "edge" {
				t.Errorf("unit %q, %v", unit, err)
			}
		})
	}
}

// Root took the file: the doctor of the service's user names chown and chmod.
func TestDoctorOfAFileOfRoot(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text := "[service]\ndevice_type = \"edge\"\ninstall_root = \"" + l.Root() + "\"\n[manager]\nurls = [\"wss://m\"]\n"
	for _, path := range []string{l.CredentialsFile(), l.AcceptedConfig(), l.ConfigFile()} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := &doctor{config: l.ConfigFile()}
	unreadable.While(t, l.Root(), l.ConfigFile(), func() {
		if !d.configuration() {
			t.Errorf("doctor ends here: %+v", d.findings)
			return
		}
		d.readable()
	})
	f := d.findings[0]
	if f.OK || !strings.Contains(f.Cause, "permission denied") || !strings.Contains(f.Cause, "refuses upgrades") || !strings.Contains(f.Remedy, "chown ") || !strings.Contains(f.Remedy, "chmod 600") {
		t.Errorf("%+v", d.findings)
	}
}
