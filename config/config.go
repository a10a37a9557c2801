// Package config reads config.toml: its types, its defaults and its rules.
//
// Load parses a file; Config.Resolve checks it and returns Settings, plain
// values that other packages build from. The zero Config is safe: upgrades are
// off, and certificates are checked. An error names the key and its rule, and
// never quotes a secret. The package writes nothing, and starts nothing.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Config is a config.toml, one field a section.
type Config struct {
	Service Service `toml:"service" json:"service"`
	Manager Manager `toml:"manager" json:"manager"`
	Upgrade Upgrade `toml:"upgrade" json:"upgrade"`
	Health  Health  `toml:"health" json:"health"`
}

// Service is the section [service].
type Service struct {
	Name        string `toml:"name" json:"name"`                 // for people; default: the device type
	DeviceType  string `toml:"device_type" json:"device_type"`   // releases must be made for it
	InstallRoot string `toml:"install_root" json:"install_root"` // absolute; default /opt/bilbycast/<name>
	Variant     string `toml:"variant" json:"variant"`           // default "default"
	Binary      string `toml:"binary" json:"binary"`             // in a version's directory; default: this program's file name
	// Unit is the service that the agent looks after, like "app.service"; empty
	// when the service is the agent itself. See agent.Attend.
	Unit string `toml:"unit" json:"unit,omitempty"`
}

// Health is the section [health]: what is asked whether the service is
// well, besides the program's own check. All of it must be well.
type Health struct {
	HTTP        string   `toml:"http" json:"http,omitempty"`                 // a URL that answers 2xx; no redirects
	Command     []string `toml:"command" json:"command,omitempty"`           // a program by its absolute path, and its arguments; exit code 0
	TimeoutSecs int      `toml:"timeout_secs" json:"timeout_secs,omitempty"` // of each; 1 to 9; default 5
}

// Manager is the section [manager].
type Manager struct {
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

// Upgrade is the section [upgrade].
type Upgrade struct {
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
