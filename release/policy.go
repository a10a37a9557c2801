package release

import (
	"fmt"
	"slices"
	"strings"
)

// DefaultChannel and DefaultVariant apply to a request that names none.
const (
	DefaultChannel = "stable"
	DefaultVariant = "default"
)

// Request is what a manager may request from a node: which release, never its
// content.
type Request struct {
	Version Version
	Channel string
	Arch    string
	Variant string
}

// Host describes a node; a release must be built for it.
type Host struct {
	DeviceType string
	Arch       string
	Variant    string
}

// Policy is the node's own decision about requests. The zero Policy refuses every
// request.
type Policy struct {
	Enabled  bool
	Channels []string // allowed channels
	// MinVersion is the operator's floor; zero means none.
	MinVersion Version
	// RollbackGrace is the number of minor versions that a request may go back.
	RollbackGrace uint64
	// RollbackMajors are the lower major versions to which a request may go back.
	RollbackMajors []uint64
	// Floor and FloorSequence are the lowest version and sequence that the releases
	// allow which proved healthy on this node (Manifest.RollbackFloor). Both only rise.
	Floor         Version
	FloorSequence uint64
}

// NewRequest checks the fields of a command and fills in empty ones: the default
// channel, and the architecture and variant of host. Its errors have the codes
// VersionInvalid, ArchMismatch or VariantMismatch.
func NewRequest(version, channel, arch, variant string, host Host) (Request, error) {
	v, err := ParseVersion(version)
	if err != nil {
		return Request{}, err
	}
	r := Request{Version: v, Channel: channel, Arch: arch, Variant: variant}
	if r.Channel == "" {
		r.Channel = DefaultChannel
	}
	if r.Arch == "" {
		r.Arch = host.Arch
	}
	if r.Variant == "" {
		r.Variant = host.Variant
	}
	if r.Arch != host.Arch {
		return Request{}, Errorf(ArchMismatch, "the request is for arch %.64q, but this node is %s", r.Arch, host.Arch)
	}
	if r.Variant != host.Variant {
		return Request{}, Errorf(VariantMismatch, "the request is for variant %.64q, but this node is %s", r.Variant, host.Variant)
	}
	return r, nil
}

// Check returns nil if the policy allows r on a node that runs the version running.
// Otherwise the error has a code, and names the setting that refuses r and the remedy.
func (p Policy) Check(r Request, running Version) error {
	if !p.Enabled {
		return Errorf(Disabled, "upgrades are disabled on this node; set enabled = true in [upgrade] of its config.toml and restart the service")
	}
	if !slices.Contains(p.Channels, r.Channel) {
		return Errorf(ChannelNotAllowed, "channel %.64q is not in allowed_channels (%s) of this node's [upgrade]", r.Channel, strings.Join(p.Channels, ", "))
	}
	if r.Version.Compare(p.MinVersion) < 0 {
		return Errorf(VersionTooOld, "%s is below min_version %s of this node's [upgrade]", r.Version, p.MinVersion)
	}
	if err := p.CheckFloor(r.Version); err != nil {
		return err
	}
	majors, minors := running.stepsBack(r.Version)
	if major := r.Version.Major(); majors > 0 && !slices.Contains(p.RollbackMajors, major) {
		return Errorf(VersionTooOld, "the downgrade from %s to %s crosses a major version; add %d to rollback_majors in this node's [upgrade] to allow it",
			running, r.Version, major)
	}
	if minors > p.RollbackGrace {
		return Errorf(VersionTooOld, "%s is %d minor versions behind the running %s; rollback_grace of this node's [upgrade] is %d",
			r.Version, minors, running, p.RollbackGrace)
	}
	return nil
}

// CheckFloor returns an error if v is below the rollback floor.
func (p Policy) CheckFloor(v Version) error {
	if v.Compare(p.Floor) < 0 {
		return Errorf(VersionTooOld, "%s is below %s, the rollback floor that an installed release set", v, p.Floor)
	}
	return nil
}

// Select checks a verified manifest against the request and the node, and
// returns the artefact to install.
func (p Policy) Select(m Manifest, r Request, host Host) (Artefact, error) {
	mismatch := func(what string, got, want any) (Artefact, error) {
		return Artefact{}, Errorf(ManifestInvalid, "manifest is for %s %v, but the request is for %v", what, got, want)
	}
	switch {
	case m.Version != r.Version:
		return mismatch("version", m.Version, r.Version)
	case m.Channel != r.Channel:
		return mismatch("channel", m.Channel, r.Channel)
	case m.DeviceType != host.DeviceType:
		return mismatch("device type", m.DeviceType, host.DeviceType)
	case m.Sequence < p.FloorSequence:
		return Artefact{}, Errorf(SequenceTooOld, "manifest has sequence %d, below %d, the floor that an installed release set", m.Sequence, p.FloorSequence)
	}
	var archs, variants []string
	for _, a := range m.Artefacts {
		if a.Arch == r.Arch && a.Variant == r.Variant {
			return a, nil
		}
		if a.Arch == r.Arch {
			variants = append(variants, a.Variant)
		} else {
			archs = append(archs, a.Arch)
		}
	}
	if variants != nil {
		return Artefact{}, Errorf(VariantMismatch, "%s has no variant %s for %s, only %s", m.Version, r.Variant, r.Arch, few(variants))
	}
	return Artefact{}, Errorf(ArchMismatch, "%s has no build for %s, only for %s", m.Version, r.Arch, few(archs))
}

// few joins the first distinct names in s, and counts the others.
func few(s []string) string {
	const most = 8
	slices.Sort(s)
	s = slices.Compact(s)
	if len(s) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(s[:most], ", "), len(s)-most)
	}
	return strings.Join(s, ", ")
}
