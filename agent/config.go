package agent

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// Config is everything an agent needs. The sections are those of config.toml
// (see Load); the other fields are set in code. The zero value is safe:
// upgrades are off, and certificates are checked.
type Config struct {
	Service ServiceConfig `toml:"service" json:"service"`
	Manager ManagerConfig `toml:"manager" json:"manager"`
	Upgrade UpgradeConfig `toml:"upgrade" json:"upgrade"`
	Health  HealthConfig  `toml:"health" json:"health"`

	// Version is the program's own version, as it was stamped when it was
	// built: what the manager is told, and what a trial is judged by.
	Version string `toml:"-" json:"-"`
	// Signers are the rows of the allowlist; nil means verify.DefaultSigners.
	Signers []verify.Signer `toml:"-" json:"-"`
	// Check, if set, is the program's own health: nil when it is well. It is
	// asked every second during a trial, and before every health beat.
	Check func(context.Context) error `toml:"-" json:"-"`
	// Drain, if set, is called once a new version is staged, before Run
	// returns, with a context that ends after drain_secs.
	Drain func(context.Context) error `toml:"-" json:"-"`
	// Notify tells systemd (systemd.Notify). It must be set when the process
	// runs under a unit of Type=notify.
	Notify func(state string) error `toml:"-" json:"-"`
	// CheckUnit, if set, is asked once, at the start: an error says why this
	// process's unit could keep a version from being rolled back, and no upgrade
	// is then taken (systemd.CheckRestarts).
	CheckUnit func(context.Context) error `toml:"-" json:"-"`
	// Journal, if set, returns the last lines of the runs before this one, which
	// the event of a rollback takes along (systemd.LastLines).
	Journal func(context.Context) ([]string, error) `toml:"-" json:"-"`
	// Handlers serve commands other than upgrades, by action type.
	Handlers map[string]Handler `toml:"-" json:"-"`
	// Log gets one record a transition.
	Log zerolog.Logger `toml:"-" json:"-"`
}

// Handler serves one command. What it returns is the ack's: an error makes it
// a failure with error_code "action_failed". Handlers run one at a time, and
// hold up the session: ctx ends after 20 s, and they must then return.
type Handler func(ctx context.Context, action wire.Action) error

// ServiceConfig is the section [service].
type ServiceConfig struct {
	Name        string `toml:"name" json:"name"`                 // for people; default: the device type
	DeviceType  string `toml:"device_type" json:"device_type"`   // releases must be made for it
	InstallRoot string `toml:"install_root" json:"install_root"` // absolute; default /opt/bilbycast/<name>
	Variant     string `toml:"variant" json:"variant"`           // default "default"
	Binary      string `toml:"binary" json:"binary"`             // in a version's directory; default: this program's file name
	// Unit is the service that the agent looks after, like "app.service"; empty
	// when the service is the agent itself. See Attend.
	Unit string `toml:"unit" json:"unit,omitempty"`
}

// HealthConfig is the section [health]: what is asked whether the service is
// well, besides Config.Check. All of it must be well.
type HealthConfig struct {
	HTTP        string   `toml:"http" json:"http,omitempty"`                 // a URL that answers 2xx; no redirects
	Command     []string `toml:"command" json:"command,omitempty"`           // a program by its absolute path, and its arguments; exit code 0
	TimeoutSecs int      `toml:"timeout_secs" json:"timeout_secs,omitempty"` // of each; 1 to 9; default 5
}

// ManagerConfig is the section [manager].
type ManagerConfig struct {
	URLs              []string `toml:"urls" json:"urls"` // wss://HOST:PORT, 1 to 16, tried in turn
	RegistrationToken string   `toml:"registration_token" json:"-"`
	// CertFingerprint pins the manager's certificate: its SHA-256, in hex. Any of
	// several will do, so that a certificate can be replaced.
	CertFingerprint Pins `toml:"cert_fingerprint" json:"cert_fingerprint,omitempty"`
	// KeyFingerprint pins the key of the manager's certificate: the SHA-256 of its
	// SubjectPublicKeyInfo, in hex. It stays when a certificate is renewed with the
	// same key. With both kinds of pins, any one will do.
	KeyFingerprint Pins `toml:"key_fingerprint" json:"key_fingerprint,omitempty"`
	// AcceptSelfSignedCert turns certificate checks off. What runs is still only
	// what is signed, but anybody on the path can then pose as the manager.
	AcceptSelfSignedCert bool   `toml:"accept_self_signed_cert" json:"accept_self_signed_cert,omitempty"`
	CAFile               string `toml:"ca_file" json:"ca_file,omitempty"`
	// Proxy is for the manager's link and for downloads alike: http://, https:// or
	// socks5:// HOST:PORT, or "none". Default: as the environment says
	// (HTTPS_PROXY, NO_PROXY). It may hold a password, and is not shown.
	Proxy string `toml:"proxy" json:"-"`
	// AllowInsecure lets URLs be ws://, to loopback only.
	AllowInsecure bool `toml:"allow_insecure" json:"allow_insecure,omitempty"`
}

// UpgradeConfig is the section [upgrade].
type UpgradeConfig struct {
	Enabled         bool     `toml:"enabled" json:"enabled"`
	AllowedChannels []string `toml:"allowed_channels" json:"allowed_channels"` // default ["stable"]
	MinVersion      string   `toml:"min_version" json:"min_version,omitempty"`
	// RollbackGrace is how many minor versions back a request may go; default 1.
	RollbackGrace *uint64 `toml:"rollback_grace" json:"rollback_grace"`
	// RollbackMajors are lower majors that a request may go back to.
	RollbackMajors       []uint64 `toml:"rollback_majors" json:"rollback_majors,omitempty"`
	BootHealthWindowSecs int      `toml:"boot_health_window_secs" json:"boot_health_window_secs"` // 10 to 86400; default 120
	MaxBootAttempts      int      `toml:"max_boot_attempts" json:"max_boot_attempts"`             // 1 to 10; default 3
	HealthHoldSecs       *int     `toml:"health_hold_secs" json:"health_hold_secs"`               // below the window; default 10
	KeepVersions         int      `toml:"keep_versions" json:"keep_versions"`                     // 2 to 100; default 3
	// ManualOnly stages what is asked for and leaves the swap to an operator:
	// edge-agent apply.
	ManualOnly bool `toml:"manual_only" json:"manual_only,omitempty"`
	// MaxBandwidth of downloads, like "500KiB/s" or "2MB/s"; at least 1KiB/s.
	MaxBandwidth string `toml:"max_bandwidth" json:"max_bandwidth,omitempty"`
	// AllowPrivateRedirects lets the release host redirect to private addresses.
	AllowPrivateRedirects bool `toml:"allow_private_redirects" json:"allow_private_redirects,omitempty"`
	DrainSecs             *int `toml:"drain_secs" json:"drain_secs"` // 0 to 3600; default 5
}

// unitNames is what a unit may be called, so that its name stands for itself
// in another unit's file.
var unitNames = regexp.MustCompile(`^[0-9A-Za-z_.@-]{1,200}$`)

// resolved is a checked Config with its defaults filled in.
type resolved struct {
	Config
	layout  state.Layout
	version release.Version
	host    release.Host
	policy  release.Policy // without the floors, which state.json has
	urls    []string
	pins    pins
	window  time.Duration
	hold    time.Duration
	drain   time.Duration
	proxy   func(*http.Request) (*url.URL, error)
	rate    int64 // bytes a second; 0: no limit
	// proxyRoots are the CAs of an https proxy; nil means the system's. Tests set it.
	proxyRoots *x509.CertPool
}

// Pins are fingerprints: in config.toml a text, or a list of texts.
type Pins []string

// UnmarshalText reads a single fingerprint.
func (p *Pins) UnmarshalText(b []byte) error {
	*p = Pins{string(b)}
	return nil
}

// maxPins bounds each list of fingerprints.
const maxPins = 16

func (p Pins) parse() ([][sha256.Size]byte, error) {
	if len(p) > maxPins {
		return nil, fmt.Errorf("%d fingerprints, more than %d", len(p), maxPins)
	}
	var sums [][sha256.Size]byte
	for _, s := range p {
		b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("%.80q is not a SHA-256 in hex (64 digits, colons allowed)", s)
		}
		sums = append(sums, [sha256.Size]byte(b))
	}
	return sums, nil
}

// resolve checks c; the error names the key and its rule.
func (c Config) resolve() (resolved, error) {
	r := resolved{Config: c}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	var err error
	if r.version, err = release.ParseVersion(c.Version); err != nil {
		bad("Version: %w", err)
	}
	s := &r.Service
	if s.DeviceType == "" {
		bad("service.device_type is missing")
	}
	if s.Unit != "" {
		name, ok := strings.CutSuffix(s.Unit, ".service")
		if !ok || !unitNames.MatchString(name) {
			bad("service.unit %q is not like app.service", s.Unit)
		}
		def(&s.Name, name)
		def(&s.Binary, name)
	}
	def(&s.Name, s.DeviceType)
	def(&s.InstallRoot, "/opt/bilbycast/"+s.Name)
	def(&s.Variant, release.DefaultVariant)
	if s.Binary == "" {
		if exe, err := os.Executable(); err == nil {
			s.Binary = filepath.Base(exe)
		}
	}
	if !filepath.IsLocal(s.Binary) {
		bad("service.binary %q is not a path inside a version's directory", s.Binary)
	}
	if r.layout, err = state.At(s.InstallRoot); err != nil {
		bad("service.install_root: %w", err)
	}
	r.host = release.Host{DeviceType: s.DeviceType, Arch: release.HostArch(), Variant: s.Variant}
	if err := r.resolveManager(); err != nil {
		bad("manager.%w", err)
	}
	if err := r.Health.resolve(); err != nil {
		bad("health.%w", err)
	}

	u := &r.Upgrade
	if len(u.AllowedChannels) == 0 {
		u.AllowedChannels = []string{release.DefaultChannel}
	}
	between := func(key string, v *int, low, high, byDefault int) {
		if *v == 0 && low > 0 {
			*v = byDefault
		}
		unit := ""
		if strings.HasSuffix(key, "_secs") {
			unit = " seconds"
		}
		if *v < low || *v > high {
			bad("upgrade.%s = %d is outside %d to %d%s", key, *v, low, high, unit)
		}
	}
	for _, c := range u.AllowedChannels {
		if c == "" || len(c) > release.MaxNameLen {
			bad("upgrade.allowed_channels: %.80q is not 1 to %d bytes long", c, release.MaxNameLen)
		}
	}
	between("boot_health_window_secs", &u.BootHealthWindowSecs, 10, 86400, 120)
	between("max_boot_attempts", &u.MaxBootAttempts, 1, state.MaxAttempts, state.DefaultMaxAttempts)
	between("keep_versions", &u.KeepVersions, 2, 100, 3)
	ptr(&u.HealthHoldSecs, min(10, u.BootHealthWindowSecs/2))
	between("health_hold_secs", u.HealthHoldSecs, 0, max(0, u.BootHealthWindowSecs-1), 0)
	ptr(&u.DrainSecs, 5)
	between("drain_secs", u.DrainSecs, 0, 3600, 0)
	ptr(&u.RollbackGrace, 1)
	r.window = time.Duration(u.BootHealthWindowSecs) * time.Second
	r.hold = time.Duration(*u.HealthHoldSecs) * time.Second
	r.drain = time.Duration(*u.DrainSecs) * time.Second
	r.policy = release.Policy{
		Enabled: u.Enabled, Channels: u.AllowedChannels,
		RollbackGrace: *u.RollbackGrace, RollbackMajors: u.RollbackMajors,
	}
	if u.MinVersion != "" {
		if r.policy.MinVersion, err = release.ParseVersion(u.MinVersion); err != nil {
			bad("upgrade.min_version: %w", err)
		}
	}
	if r.rate, err = bandwidth(u.MaxBandwidth); err != nil {
		bad("upgrade.max_bandwidth: %w", err)
	}
	if c.Notify == nil {
		if os.Getenv("NOTIFY_SOCKET") != "" {
			bad("this process runs under a unit of Type=notify, but Config.Notify is not set; set it to systemd.Notify")
		}
		r.Notify = func(string) error { return nil }
	}
	return r, errors.Join(errs...)
}

func (r *resolved) resolveManager() error {
	m := &r.Manager
	switch u, err := url.Parse(m.Proxy); {
	case m.Proxy == "":
		r.proxy = http.ProxyFromEnvironment
	case m.Proxy == "none":
		r.proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	case err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme):
		return errors.New("proxy is not like http://proxy.example:3128 (http, https or socks5), nor \"none\"")
	default:
		r.proxy = http.ProxyURL(u)
	}
	if len(m.URLs) < 1 || len(m.URLs) > 16 {
		return fmt.Errorf("urls has %d entries; give 1 to 16, like wss://manager.example:8443", len(m.URLs))
	}
	for _, s := range m.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("urls: %q is not like wss://manager.example:8443", s)
		}
		switch {
		case u.Scheme == "wss":
		case u.Scheme == "ws" && m.AllowInsecure && loopback(u.Hostname()):
		case u.Scheme == "ws":
			return fmt.Errorf("urls: %q is not encrypted; ws:// is only for a loopback address, with allow_insecure = true", s)
		default:
			return fmt.Errorf("urls: %q has the scheme %q; it must be wss", s, u.Scheme)
		}
		if p := u.Port(); p != "" {
			if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
				return fmt.Errorf("urls: %q has the port %s; it must be 1 to 65535", s, p)
			}
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = wire.Path
		}
		r.urls = append(r.urls, u.String())
	}
	var err error
	if r.pins.certs, err = m.CertFingerprint.parse(); err != nil {
		return fmt.Errorf("cert_fingerprint: %w", err)
	}
	if r.pins.keys, err = m.KeyFingerprint.parse(); err != nil {
		return fmt.Errorf("key_fingerprint: %w", err)
	}
	return nil
}

// bandwidth reads a number of bytes a second: "500KiB/s", "2MB/s".
func bandwidth(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	number := strings.TrimRight(strings.TrimSuffix(s, "/s"), "BKMGi")
	unit, ok := map[string]int64{"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[strings.TrimSuffix(s[len(number):], "/s")]
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n < 1 || n > 1<<20 || n*unit < 1<<10 || !strings.HasSuffix(s, "/s") {
		return 0, fmt.Errorf("%q is not like 500KiB/s or 2MB/s, and at least 1KiB/s", s)
	}
	return n * unit, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func def(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

func ptr[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// Check returns c with its defaults filled in, or all that is wrong with it.
// It touches nothing.
func Check(c Config) (Config, error) {
	if c.Version == "" {
		c.Version = "0.0.0"
	}
	if c.Notify == nil {
		c.Notify = func(string) error { return nil }
	}
	r, err := c.resolve()
	return r.Config, err
}
