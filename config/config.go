// Package config reads config.toml: its types, its defaults and its rules.
//
// Load parses a file; Config.Resolve checks it and returns Settings, plain
// values that other packages build from. Open returns the Settings with which a node
// runs, whatever happened to its file. The zero Config is safe: upgrades are
// off, and certificates are checked. An error names the key and its rule, and
// never quotes a secret. The package writes nothing, and starts nothing.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Config is a config.toml, one field a section. The comments of the keys are the
// rows of docs/reference/config.md, which is generated from them.
type Config struct {
	Service Service `toml:"service" json:"service"`
	Manager Manager `toml:"manager" json:"manager"`
	Upgrade Upgrade `toml:"upgrade" json:"upgrade"`
	Health  Health  `toml:"health" json:"health"`
}

// Service is the section [service].
type Service struct {
	// Names the unit, and is shown to people. Default: the name of service.unit, or the
	// device type.
	Name string `toml:"name" json:"name"`
	// A release must be for this device type. Required.
	DeviceType string `toml:"device_type" json:"device_type"`
	// An absolute path: the root of versions, links and state. Default:
	// /opt/bilbycast/<name>.
	InstallRoot string `toml:"install_root" json:"install_root"`
	// Variant of the release. Default: default.
	Variant string `toml:"variant" json:"variant"`
	// The program's file name, in a version's directory. Default: this program's file
	// name, or the name of service.unit.
	Binary string `toml:"binary" json:"binary"`
	// The service that the agent upgrades, such as app.service. Without it, the service
	// is the agent itself. See docs/attach.md.
	Unit string `toml:"unit" json:"unit,omitempty"`
}

// Health is the section [health]: what checks the service, besides the program's own
// check. Every check must pass. See docs/attach.md.
type Health struct {
	// A URL that answers 2xx while the service is healthy, and 424 if it cannot tell; no
	// redirects, no proxy.
	HTTP string `toml:"http" json:"http,omitempty"`
	// A program by its absolute path, and its arguments. It runs as the agent's user,
	// without a shell, and exits 0 while the service is healthy, and 75 if it cannot tell.
	Command []string `toml:"command" json:"command,omitempty"`
	// What the service needs and its releases do not contain, such as a database: a URL,
	// or a program and its arguments, by the rules of http and command. While it fails, a
	// failed check is no evidence against a version.
	Dependency Dependency `toml:"dependency" json:"dependency,omitempty"`
	// Limit of each check, in seconds: 1 to 9. Default: 5.
	TimeoutSecs int `toml:"timeout_secs" json:"timeout_secs,omitempty"`
}

// Manager is the section [manager].
type Manager struct {
	// 1 to 16 of wss://HOST:PORT, tried in this order; [] for a node without a manager.
	// Required.
	URLs []string `toml:"urls" json:"urls"`
	// For the first connection. The file must then have mode 0600.
	RegistrationToken Secret `toml:"registration_token" json:"registration_token,omitzero"`
	// SHA-256 of the manager's certificate, in hex; only this certificate is accepted. A
	// string, or a list of up to 16 of which one must match, so that a certificate can
	// be replaced.
	CertFingerprint Pins `toml:"cert_fingerprint" json:"cert_fingerprint,omitempty"`
	// SHA-256 of the SubjectPublicKeyInfo of the manager's certificate, in hex; a string
	// or a list. It stays the same when a certificate is renewed with its key. With both
	// kinds of fingerprint, one must match.
	KeyFingerprint Pins `toml:"key_fingerprint" json:"key_fingerprint,omitempty"`
	// Accepts any certificate: anybody on the network path can then pose as the manager,
	// but can install only signed releases. Default: false.
	AcceptSelfSignedCert bool `toml:"accept_self_signed_cert" json:"accept_self_signed_cert,omitempty"`
	// PEM of the CAs that may sign the manager's certificate; read again for each
	// connection. Default: the system's.
	CAFile string `toml:"ca_file" json:"ca_file,omitempty"`
	// For the manager and for downloads: http://, https:// or socks5:// HOST:PORT, or
	// none. The system's CAs verify the certificate of an https proxy. It may contain a
	// password, and is not shown. Default: HTTPS_PROXY and NO_PROXY.
	Proxy Secret `toml:"proxy" json:"proxy,omitzero"`
	// Allows ws:// URLs, to loopback only. Default: false.
	AllowInsecure bool `toml:"allow_insecure" json:"allow_insecure,omitempty"`
}

// Upgrade is the section [upgrade].
type Upgrade struct {
	// Accepts upgrades that the manager requests. Default: false.
	Enabled bool `toml:"enabled" json:"enabled"`
	// Channels from which the node accepts releases. Default: ["stable"].
	AllowedChannels []string `toml:"allowed_channels" json:"allowed_channels"`
	// The lowest version that the node accepts.
	MinVersion string `toml:"min_version" json:"min_version,omitempty"`
	// How many minor versions a downgrade may go back. Default: 1.
	RollbackGrace *uint64 `toml:"rollback_grace" json:"rollback_grace"`
	// Lower major versions to which a downgrade is allowed. Default: none.
	RollbackMajors []uint64 `toml:"rollback_majors" json:"rollback_majors,omitempty"`
	// Seconds in which each start of a version on trial must become healthy: 10 to
	// 86400. Default: 120.
	BootHealthWindowSecs int `toml:"boot_health_window_secs" json:"boot_health_window_secs"`
	// Starts of a version on trial before it is rolled back: 1 to 10. Default: 3.
	MaxBootAttempts int `toml:"max_boot_attempts" json:"max_boot_attempts"`
	// Seconds for which a version must stay healthy; less than the window. Default: 10,
	// or half of a shorter window.
	HealthHoldSecs *int `toml:"health_hold_secs" json:"health_hold_secs"`
	// Installed versions, including the new one: 2 to 100. Staging a release removes
	// failed and superseded versions first, then the oldest; more of them if the space
	// is still too small. It never removes a version that runs or that a rollback needs.
	// Default: 3.
	KeepVersions int `toml:"keep_versions" json:"keep_versions"`
	// Stages a release, and leaves the swap to edge-agent apply. Default: false.
	ManualOnly bool `toml:"manual_only" json:"manual_only,omitempty"`
	// Limit of downloads, such as 500KiB/s or 2MB/s; at least 1KiB/s. Default: none.
	MaxBandwidth string `toml:"max_bandwidth" json:"max_bandwidth,omitempty"`
	// Seconds for which a download is tried again while the release host can be reached and
	// nothing of the release arrives: 60 to 2592000. Every byte that arrives renews the time.
	// While the host cannot be reached, the node waits, however long. Default: 86400.
	DownloadRetrySecs int `toml:"download_retry_secs" json:"download_retry_secs"`
	// Lets the release host redirect to private addresses. Default: false.
	AllowPrivateRedirects bool `toml:"allow_private_redirects" json:"allow_private_redirects,omitempty"`
	// Seconds that the service gets to finish before it restarts: 0 to 3600. Default: 5.
	DrainSecs *int `toml:"drain_secs" json:"drain_secs"`
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

// clone returns a copy that shares no memory with c.
func (c Config) clone() Config {
	m, u, h := &c.Manager, &c.Upgrade, &c.Health
	m.URLs, m.CertFingerprint, m.KeyFingerprint = slices.Clone(m.URLs), slices.Clone(m.CertFingerprint), slices.Clone(m.KeyFingerprint)
	u.AllowedChannels, u.RollbackMajors = slices.Clone(u.AllowedChannels), slices.Clone(u.RollbackMajors)
	u.RollbackGrace, u.HealthHoldSecs, u.DrainSecs = copied(u.RollbackGrace), copied(u.HealthHoldSecs), copied(u.DrainSecs)
	h.Command, h.Dependency = slices.Clone(h.Command), slices.Clone(h.Dependency)
	return c
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
