package config

import (
	"crypto/sha256"
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
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// Settings is a checked Config with its defaults filled in, and what its texts
// mean.
type Settings struct {
	Config
	Layout state.Layout
	Host   release.Host
	Policy release.Policy // without the floors, which state.json has
	URLs   []string       // of the manager, to be tried in turn; empty: the node has none
	// Certs and Keys are the pins of the manager's certificate: SHA-256 of it, and
	// of its key. Any one is enough.
	Certs, Keys [][sha256.Size]byte
	Window      time.Duration // boot_health_window_secs
	Hold        time.Duration // health_hold_secs
	DrainTime   time.Duration // drain_secs
	// DownloadRetry is download_retry_secs.
	DownloadRetry time.Duration
	MaxBandwidth  int64 // of downloads, in bytes a second; 0: no limit
	proxy         *url.URL
	noProxy       bool
}

// Proxy returns the proxy for a request of the manager's link or of a download;
// nil means none. It is an http.Transport's Proxy.
func (s Settings) Proxy(r *http.Request) (*url.URL, error) {
	switch {
	case s.noProxy:
		return nil, nil
	case s.proxy != nil:
		return s.proxy, nil
	}
	return http.ProxyFromEnvironment(r)
}

// Pinned reports whether the manager's certificate is pinned.
func (s Settings) Pinned() bool { return len(s.Certs)+len(s.Keys) > 0 }

// unitNames is what a unit may be called, so that its name stands for itself
// in another unit's file.
var unitNames = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z_.@-]{1,200}$`) })

// shortestWindow and longestWindow bound boot_health_window_secs.
const shortestWindow, longestWindow = 10, 86400

// Resolve checks c and fills in its defaults. The error names every key that
// breaks its rule (Errors); the Settings then hold the defaults all the same. It touches
// nothing, and the Settings share no memory with c.
func (c Config) Resolve() (Settings, error) {
	r := Settings{Config: c.clone()}
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, NewError(key, format, args...)) }

	var err error
	s := &r.Service
	if s.DeviceType == "" {
		bad("service.device_type", " is missing")
	}
	if s.Unit != "" {
		name, ok := strings.CutSuffix(s.Unit, ".service")
		if !ok || !unitNames().MatchString(name) {
			bad("service.unit", " %q is not like app.service", s.Unit)
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
		bad("service.binary", " %q is not a path inside a version's directory", s.Binary)
	}
	if r.Layout, err = state.At(s.InstallRoot); err != nil {
		bad("service.install_root", ": %w", err)
	}
	// Only a name that somebody chose: a default may be that of a copy of edge-agent, or
	// of a unit, which no version has.
	r.Layout = r.Layout.WithProgram(c.Service.Binary)
	r.Host = release.Host{DeviceType: s.DeviceType, Arch: release.HostArch(), Variant: s.Variant}
	errs = append(errs, r.resolveManager(), r.Health.resolve(r.Layout))

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
			bad("upgrade."+key, " = %d is outside %d to %d%s", *v, low, high, unit)
		}
	}
	for _, c := range u.AllowedChannels {
		if c == "" || len(c) > release.MaxNameLen {
			bad("upgrade.allowed_channels", ": %.80q is not 1 to %d bytes long", c, release.MaxNameLen)
		}
	}
	between("boot_health_window_secs", &u.BootHealthWindowSecs, shortestWindow, longestWindow, 120)
	between("max_boot_attempts", &u.MaxBootAttempts, 1, state.MaxAttempts, state.DefaultMaxAttempts)
	between("keep_versions", &u.KeepVersions, 2, 100, 3)
	window := u.BootHealthWindowSecs
	if window < shortestWindow || window > longestWindow { // a rule on top of a wrong value would mislead
		window = longestWindow
	}
	ptr(&u.HealthHoldSecs, min(10, window/2))
	between("health_hold_secs", u.HealthHoldSecs, 0, window-1, 0)
	ptr(&u.DrainSecs, 5)
	between("drain_secs", u.DrainSecs, 0, 3600, 0)
	between("download_retry_secs", &u.DownloadRetrySecs, 60, 30*86400, 86400)
	ptr(&u.RollbackGrace, 1)
	r.Window = time.Duration(u.BootHealthWindowSecs) * time.Second
	r.Hold = time.Duration(*u.HealthHoldSecs) * time.Second
	r.DrainTime = time.Duration(*u.DrainSecs) * time.Second
	r.DownloadRetry = time.Duration(u.DownloadRetrySecs) * time.Second
	r.Policy = release.Policy{
		Enabled: u.Enabled, Channels: u.AllowedChannels,
		RollbackGrace: *u.RollbackGrace, RollbackMajors: u.RollbackMajors,
	}
	if u.MinVersion != "" {
		if r.Policy.MinVersion, err = release.ParseVersion(u.MinVersion); err != nil {
			bad("upgrade.min_version", ": %w", err)
		}
	}
	if r.MaxBandwidth, err = bandwidth(u.MaxBandwidth); err != nil {
		bad("upgrade.max_bandwidth", ": %w", err)
	}
	return r, errors.Join(errs...)
}

// resolveManager checks [manager].
func (r *Settings) resolveManager() error {
	m := &r.Manager
	var errs []error
	proxy := m.Proxy.Reveal()
	switch u, err := url.Parse(proxy); {
	case proxy == "":
	case proxy == "none":
		r.noProxy = true
	case err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme):
		errs = append(errs, NewError("manager.proxy", " is not like http://proxy.example:3128 (http, https or socks5), nor \"none\""))
	default:
		r.proxy = u
	}
	errs = append(errs, r.resolveURLs())
	var err error
	if r.Certs, err = m.CertFingerprint.parse(); err != nil {
		errs = append(errs, NewError("manager.cert_fingerprint", ": %w", err))
	}
	if r.Keys, err = m.KeyFingerprint.parse(); err != nil {
		errs = append(errs, NewError("manager.key_fingerprint", ": %w", err))
	}
	return errors.Join(errs...)
}

// resolveURLs checks manager.urls, up to the first URL that breaks a rule.
func (r *Settings) resolveURLs() error {
	m := &r.Manager
	bad := func(format string, args ...any) error { return NewError("manager.urls", format, args...) }
	if m.URLs == nil { // an empty list is meant, a missing key may be forgotten
		return bad(" is missing; give 1 to 16, like [\"wss://manager.example:8443\"], or [] for a node without a manager")
	}
	if len(m.URLs) > 16 {
		return bad(" has %d entries; give 1 to 16, like wss://manager.example:8443", len(m.URLs))
	}
	for _, s := range m.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return bad(": %q is not like wss://manager.example:8443", withoutSecret(s))
		}
		switch {
		case u.Scheme == "wss":
		case u.Scheme == "ws" && m.AllowInsecure && loopback(u.Hostname()):
		case u.Scheme == "ws":
			return bad(": %q is not encrypted; ws:// is only for a loopback address, with allow_insecure = true", s)
		default:
			return bad(": %q has the scheme %q; it must be wss", s, u.Scheme)
		}
		if p := u.Port(); p != "" {
			if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
				return bad(": %q has the port %s; it must be 1 to 65535", s, p)
			}
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = wire.Path
		}
		r.URLs = append(r.URLs, u.String())
	}
	return nil
}

// withoutSecret returns a URL without what may be a password: its user, and its query.
func withoutSecret(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "", s
	} else {
		scheme += "://"
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = "...@" + rest[i+1:]
	}
	rest, _, found := strings.Cut(rest, "?")
	if found {
		rest += "?..."
	}
	return scheme + rest
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
