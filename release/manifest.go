// Package release defines releases: the manifest, versions, the codes that report the
// outcome of an upgrade, and the node's policy about which releases may be requested.
//
// The package is pure: it reads no file, no clock and no network. Parsing a manifest
// does not make it trusted: package verify checks its signature. Every size and length
// is bounded, and a text of another program passes through Foreign before it is quoted.
//
// A node uses it in this order: NewRequest checks a command, Policy.Check decides
// whether the request is allowed, Parse reads the manifest that package verify trusts,
// and Policy.Select picks the artefact to install.
package release

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Names of the files beside the tarballs of a release.
const (
	ManifestName = "manifest.json"
	BundleName   = "manifest.sig.bundle"
)

// Limits of a manifest. They bound the memory and disk that hostile bytes can use;
// real manifests stay below a hundredth of them.
const (
	MaxManifest  = 1 << 20  // bytes of manifest.json
	MaxArtefacts = 256      // artefacts in one release
	MaxTarball   = 16 << 30 // bytes of one tarball
	MaxUnpacked  = 64 << 30 // bytes of one unpacked tarball
	MaxNameLen   = 64       // bytes of arch, variant, channel, device type
	maxURLLen    = 2048     // bytes of an artefact's URL

	MaxCommands       = 16   // commands that a release declares
	MaxCommandLen     = 40   // bytes of each
	MaxFirstStartSecs = 3600 // of FirstStartSecs
)

// Commands that a release can declare: an agent runs none that it may not know.
const (
	CommandProbe       = "probe"        // probe --config FILE --json tests the link to the manager
	CommandConfigCheck = "config check" // config check FILE checks a config.toml; see stage.CheckConfig
)

// Manifest is manifest.json, the signed description of one release.
type Manifest struct {
	Version    Version   `json:"version"`
	DeviceType string    `json:"device_type"`
	Channel    string    `json:"channel"`
	ReleasedAt time.Time `json:"released_at"` // shown to people; no decision uses it
	// Sequence rises with every release of a device type.
	Sequence uint64 `json:"sequence"`
	// RollbackFloor, if set, is the lowest version that a node may install after this
	// release has proved healthy there.
	RollbackFloor Version `json:"rollback_floor,omitzero"`
	// Commands are what the release's program understands, such as CommandProbe. A node
	// ignores those that it does not know.
	Commands []string `json:"commands,omitempty"`
	// FirstStartSecs is how long a start may take until the health check first passes, if
	// that is longer than the node's own limit: the first start may migrate data. 0: the
	// release says nothing.
	FirstStartSecs int        `json:"first_start_secs,omitzero"`
	Artefacts      []Artefact `json:"artefacts"`
}

// Artefact is one tarball of a release.
type Artefact struct {
	Arch    string `json:"arch"`    // as HostArch writes it
	Variant string `json:"variant"` // "default" when there is only one
	URL     string `json:"url"`     // must lie directly under the release's base URL
	SHA256  string `json:"sha256"`  // of the tarball, 64 lower-case hex digits
	// Size and UnpackedSize are in bytes; 0 means unknown (releases from before these
	// fields existed).
	Size         int64 `json:"size,omitzero"`
	UnpackedSize int64 `json:"unpacked_size,omitzero"`
	// Chunks (a Chunks) and Formats (a list of Form) make an upgrade faster. Forms reads
	// them; Parse does not, so that what is wrong with them never costs a release.
	Chunks  json.RawMessage `json:"chunks,omitempty"`
	Formats json.RawMessage `json:"formats,omitempty"`
}

// Parse reads and checks a manifest of at most MaxManifest bytes. It ignores unknown
// fields, so that a newer publisher can add some. Every error has the code
// ManifestInvalid.
func Parse(b []byte) (Manifest, error) {
	if len(b) > MaxManifest {
		return Manifest{}, Errorf(ManifestInvalid, "manifest of %d bytes, more than %d", len(b), MaxManifest)
	}
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&m); err != nil {
		return Manifest{}, Errorf(ManifestInvalid, "manifest: %w", ForeignError(err, ForeignLimit)) // the error quotes the manifest
	}
	if _, err := d.Token(); err != io.EOF {
		return Manifest{}, Errorf(ManifestInvalid, "manifest: more bytes after its end")
	}
	if err := m.check(); err != nil {
		return Manifest{}, Errorf(ManifestInvalid, "manifest: %w", err)
	}
	return m, nil
}

func (m Manifest) check() error {
	if m.Version.IsZero() {
		return fmt.Errorf("version is missing")
	}
	if err := checkName("device_type", m.DeviceType, MaxNameLen); err != nil {
		return err
	}
	if err := checkName("channel", m.Channel, MaxNameLen); err != nil {
		return err
	}
	if m.RollbackFloor.Compare(m.Version) > 0 {
		return fmt.Errorf("rollback_floor %s is above the release's own version %s", m.RollbackFloor, m.Version)
	}
	if len(m.Commands) > MaxCommands {
		return fmt.Errorf("%d commands, more than %d", len(m.Commands), MaxCommands)
	}
	for i, c := range m.Commands {
		if err := checkName(fmt.Sprintf("command %d", i+1), strings.ReplaceAll(c, " ", "-"), MaxCommandLen); err != nil {
			return err
		}
	}
	if m.FirstStartSecs < 0 || m.FirstStartSecs > MaxFirstStartSecs {
		return fmt.Errorf("first_start_secs %d is outside 1 to %d", m.FirstStartSecs, MaxFirstStartSecs)
	}
	if len(m.Artefacts) == 0 {
		return fmt.Errorf("no artefacts")
	}
	if len(m.Artefacts) > MaxArtefacts {
		return fmt.Errorf("%d artefacts, more than %d", len(m.Artefacts), MaxArtefacts)
	}
	seen := make(map[[2]string]bool)
	for i, a := range m.Artefacts {
		if err := a.check(); err != nil {
			return fmt.Errorf("artefact %d: %w", i+1, err)
		}
		key := [2]string{a.Arch, a.Variant}
		if seen[key] {
			return fmt.Errorf("artefact %d: a second one for arch %s, variant %s", i+1, a.Arch, a.Variant)
		}
		seen[key] = true
	}
	return nil
}

func (a Artefact) check() error {
	if err := checkName("arch", a.Arch, MaxNameLen); err != nil {
		return err
	}
	if err := checkName("variant", a.Variant, MaxNameLen); err != nil {
		return err
	}
	if a.URL == "" || len(a.URL) > maxURLLen {
		return fmt.Errorf("url has %d bytes; allowed are 1 to %d", len(a.URL), maxURLLen)
	}
	if !IsSHA256(a.SHA256) {
		return fmt.Errorf("sha256 %.80q is not 64 lower-case hex digits", a.SHA256)
	}
	if a.Size < 0 || a.Size > MaxTarball {
		return fmt.Errorf("size %d is outside 0 to %d", a.Size, int64(MaxTarball))
	}
	if a.UnpackedSize < 0 || a.UnpackedSize > MaxUnpacked {
		return fmt.Errorf("unpacked_size %d is outside 0 to %d", a.UnpackedSize, int64(MaxUnpacked))
	}
	return nil
}

// BaseURL returns the URL below which GitHub serves the files of a version. repository
// is the URL of the repository (https://github.com/OWNER/REPO).
func BaseURL(repository string, v Version) string {
	return strings.TrimSuffix(repository, "/") + "/releases/download/v" + v.String()
}

// File returns the name of a's tarball, which must lie directly under base; otherwise
// the error has the code URLInvalid. Even a signed manifest does not choose the host:
// the node builds every URL itself, and uses only this last element.
func (a Artefact) File(base string) (string, error) {
	name, ok := strings.CutPrefix(a.URL, base+"/")
	if !ok {
		return "", Errorf(URLInvalid, "artefact URL %q is not under %s", Foreign(a.URL, ForeignLimit), base)
	}
	if err := checkFile(name); err != nil {
		return "", Errorf(URLInvalid, "artefact URL %q: %w", Foreign(a.URL, ForeignLimit), ForeignError(err, ForeignLimit))
	}
	return name, nil
}

// checkFile allows the characters that GitHub allows in the name of a release asset.
func checkFile(name string) error {
	if strings.HasPrefix(name, ".") {
		return fmt.Errorf("file name %q starts with a dot", name)
	}
	return checkName("file name", strings.ReplaceAll(name, "+", "-"), 255)
}

// IsSHA256 reports whether s is a SHA-256 in 64 lower-case hex digits.
func IsSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && strings.ToLower(s) == s
}
