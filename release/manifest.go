// Package release holds what a release is: its manifest, its version, the
// codes by which its fate is told, and the node's policy about which releases
// may be asked for.
//
// It is pure: bytes and values in, values and errors out. It reads no file,
// no clock and no network, and it trusts nothing: that a manifest parses does
// not mean that anybody signed it (package verify decides that).
package release

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
)

// Names of the files that stand beside the tarballs of a release.
const (
	ManifestName = "manifest.json"
	BundleName   = "manifest.sig.bundle"
)

// Limits of a manifest. They bound what hostile bytes can cost; real
// manifests stay below a hundredth of them.
const (
	MaxManifest  = 1 << 20  // bytes of manifest.json
	MaxArtefacts = 256      // artefacts in one release
	MaxTarball   = 16 << 30 // bytes of one tarball
	MaxUnpacked  = 64 << 30 // bytes of one unpacked tarball
	MaxNameLen   = 64       // bytes of arch, variant, channel, device type
	maxURLLen    = 2048     // bytes of an artefact's URL
)

// Manifest is manifest.json, the signed description of one release.
type Manifest struct {
	Version    Version   `json:"version"`
	DeviceType string    `json:"device_type"`
	Channel    string    `json:"channel"`
	ReleasedAt time.Time `json:"released_at"` // for people; no decision reads it
	// Sequence counts the releases of a device type, upwards.
	Sequence uint64 `json:"sequence"`
	// RollbackFloor, when given, is the lowest version that a node may go
	// back to once this release has proved healthy there.
	RollbackFloor Version    `json:"rollback_floor,omitzero"`
	Artefacts     []Artefact `json:"artefacts"`
}

// Artefact is one tarball of a release.
type Artefact struct {
	Arch    string `json:"arch"`    // as HostArch writes it
	Variant string `json:"variant"` // "default" when there is only one
	URL     string `json:"url"`     // must lie directly under the release's base URL
	SHA256  string `json:"sha256"`  // of the tarball, 64 lower-case hex digits
	// Size and UnpackedSize are in bytes; 0 means that the publisher did not
	// say (releases made before these fields existed).
	Size         int64 `json:"size,omitzero"`
	UnpackedSize int64 `json:"unpacked_size,omitzero"`
}

// Parse reads and checks a manifest of at most MaxManifest bytes. Fields that
// it does not know are ignored, so that a newer publisher can add some. Every
// error carries ManifestInvalid.
func Parse(b []byte) (Manifest, error) {
	if len(b) > MaxManifest {
		return Manifest{}, Errorf(ManifestInvalid, "manifest of %d bytes, more than %d", len(b), MaxManifest)
	}
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&m); err != nil {
		return Manifest{}, Errorf(ManifestInvalid, "manifest: %w", ForeignError(err, ForeignLimit)) // it quotes the manifest
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
	if b, err := hex.DecodeString(a.SHA256); err != nil || len(b) != 32 || strings.ToLower(a.SHA256) != a.SHA256 {
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

// BaseURL is where the files of a version stand: the release page of the
// repository (https://github.com/OWNER/REPO), as GitHub lays it out.
func BaseURL(repository string, v Version) string {
	return strings.TrimSuffix(repository, "/") + "/releases/download/v" + v.String()
}

// File returns the name of a's tarball, which must lie directly under base.
// The manifest is signed, and still it does not choose the host: the node
// builds every URL itself and takes only the last element from here.
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

// checkFile allows what GitHub allows in the name of a release asset.
func checkFile(name string) error {
	if strings.HasPrefix(name, ".") {
		return fmt.Errorf("file name %q starts with a dot", name)
	}
	return checkName("file name", strings.ReplaceAll(name, "+", "-"), 255)
}

// HostArch is the name of the architecture that this program was built for,
// as manifests write it: x86_64-linux, aarch64-linux, armv7-linux, ...
func HostArch() string {
	arch := runtime.GOARCH
	switch arch {
	case "amd64":
		arch = "x86_64"
	case "arm64":
		arch = "aarch64"
	case "arm":
		arch = "armv7"
	case "386":
		arch = "i686"
	}
	return arch + "-linux"
}
