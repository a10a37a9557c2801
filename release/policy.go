package release

import (
	"fmt"
	"slices"
	"strings"
)

// DefaultChannel and DefaultVariant are what a request means that names none.
const (
	DefaultChannel = "stable"
	DefaultVariant = "default"
)

// Request is what a manager may ask of a node: which release, never what is
// in it.
type Request struct {
	Version Version
	Channel string
	Arch    string
	Variant string
}

// Host is what a node is; a release must be made for it.
type Host struct {
	DeviceType string
	Arch       string
	Variant    string
}

// Policy is the node's own say about requests. The zero Policy refuses
// everything.
type Policy struct {
	Enabled  bool
	Channels []string // allowed channels
	// MinVersion is the operator's floor; zero means none.
	MinVersion Version
	// RollbackGrace is how many minor versions back a request may go.
	RollbackGrace uint64
	// RollbackMajors are the majors below the running one that a request may
	// go back to.
	RollbackMajors []uint64
	// Floor is the lowest version that a release which proved healthy here
	// still lets the node go back to (Manifest.RollbackFloor), and
	// FloorSequence the lowest sequence; both only ever rise.
	Floor         Version
	FloorSequence uint64
}

// NewRequest checks the words of a command and fills in what it left out.
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
		return Request{}, Errorf(ArchMismatch, "asked for arch %.64q, but this node is %s", r.Arch, host.Arch)
	}
	if r.Variant != host.Variant {
		return Request{}, Errorf(VariantMismatch, "asked for variant %.64q, but this node is %s", r.Variant, host.Variant)
	}
	return r, nil
}

// Check says whether the policy lets a node that runs the version running
// take r. The error says which setting refused it, and what to do.
func (p Policy) Check(r Request, running Version) error {
	if !p.Enabled {
		return Errorf(Disabled, "upgrades are off on this node; set enabled = true in [upgrade] of its config.toml and restart the service")
	}
	if !slices.Contains(p.Channels, r.Channel) {
		return Errorf(ChannelNotAllowed, "channel %.64q is not in allowed_channels (%s) of this node's [upgrade]", r.Channel, strings.Join(p.Channels, ", "))
	}
	if r.Version.Compare(p.MinVersion) < 0 {
		return Errorf(VersionTooOld, "%s is below min_version %s of this node's [upgrade]", r.Version, p.MinVersion)
	}
	if r.Version.Compare(p.Floor) < 0 {
		return Errorf(VersionTooOld, "%s is below %s, the rollback floor that an installed release set", r.Version, p.Floor)
	}
	majors, minors := running.stepsBack(r.Version)
	if major := r.Version.Major(); majors > 0 && !slices.Contains(p.RollbackMajors, major) {
		return Errorf(VersionTooOld, "going back from %s to %s crosses a major version; add %d to rollback_majors in this node's [upgrade] to allow it",
			running, r.Version, major)
	}
	if minors > p.RollbackGrace {
		return Errorf(VersionTooOld, "%s is %d minor versions behind the running %s; rollback_grace of this node's [upgrade] is %d",
			r.Version, minors, running, p.RollbackGrace)
	}
	return nil
}

// Select checks a verified manifest against the request and the node, and
// returns the artefact to install.
func (p Policy) Select(m Manifest, r Request, host Host) (Artefact, error) {
	mismatch := func(what string, got, want any) (Artefact, error) {
		return Artefact{}, Errorf(ManifestInvalid, "manifest is for %s %v, but %v was asked for", what, got, want)
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
	return Artefact{}, Errorf(ArchMismatch, "%s has nothing for %s, only for %s", m.Version, r.Arch, few(archs))
}

// few joins the distinct names in s, and says how many it left out.
func few(s []string) string {
	const most = 8
	slices.Sort(s)
	s = slices.Compact(s)
	if len(s) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(s[:most], ", "), len(s)-most)
	}
	return strings.Join(s, ", ")
}
