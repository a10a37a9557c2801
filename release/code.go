package release

import (
	"fmt"
	"strings"
)

// Code is a machine-readable outcome of an upgrade: the error_code of every
// event of category "upgrade" and of a failed command_ack. Operators filter
// on these, so a code never changes its meaning.
type Code string

// The lifecycle of an upgrade that goes well.
const (
	Started      Code = "upgrade_started"
	Downloaded   Code = "upgrade_downloaded"
	Staged       Code = "upgrade_staged"
	StagedManual Code = "upgrade_staged_manual"
	Completed    Code = "upgrade_completed"
)

// RolledBack means that the new version did not become healthy, and that the node
// rolled back to the previous one.
const RolledBack Code = "upgrade_rolled_back"

// Superseded means that a newer version took the place of an unproven one. It is the last
// code of its command.
const Superseded Code = "upgrade_superseded"

// Withdrawn means that the manager, or an operator on the device, withdrew the command before
// the swap. It is the last code of its command. What was downloaded stays.
const Withdrawn Code = "upgrade_withdrawn"

// NotStarted means that nothing started the new version within a health window after the
// swap, and that the node took the swap back. It says nothing about the version.
const NotStarted Code = "upgrade_not_started"

// Verification refused the release.
const (
	SignatureInvalid   Code = "upgrade_signature_invalid"
	IdentityNotAllowed Code = "upgrade_identity_not_allowed"
	RekorInvalid       Code = "upgrade_rekor_invalid"
)

// The node's own policy refused the request.
const (
	Disabled          Code = "upgrade_disabled"
	ChannelNotAllowed Code = "upgrade_channel_not_allowed"
	VersionTooOld     Code = "upgrade_version_too_old"
	VersionInvalid    Code = "upgrade_version_invalid"
	SequenceTooOld    Code = "upgrade_sequence_too_old"
	InProgress        Code = "upgrade_in_progress"
)

// Unhealthy means that the running version failed its own check before the swap, or that
// what it depends on did not answer. After it nobody could tell a bad version from a sick
// node.
const Unhealthy Code = "upgrade_unhealthy"

// Staging failed.
const (
	URLInvalid       Code = "upgrade_url_invalid"
	NetworkError     Code = "upgrade_network_error"
	ManifestInvalid  Code = "upgrade_manifest_invalid"
	ManifestChanged  Code = "upgrade_manifest_changed" // it is not the one that the manager's command names
	ArchMismatch     Code = "upgrade_arch_mismatch"
	VariantMismatch  Code = "upgrade_variant_mismatch"
	ChecksumMismatch Code = "upgrade_checksum_mismatch"
	ExtractFailed    Code = "upgrade_extract_failed"
	ConfigRefused    Code = "upgrade_config_refused"
	DataNotSaved     Code = "upgrade_data_not_saved" // the service refused the trial, or could not save its data for a rollback
	DiskFull         Code = "upgrade_disk_full"
)

// Internal is a defect or an I/O error that fits no other code.
const Internal Code = "upgrade_internal"

// Severity is the weight of an event. A node sends the first three; a reader
// also accepts the other two.
type Severity string

// The severities, lightest first. Only other programs use minor and major.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
	Minor    Severity = "minor"
	Major    Severity = "major"
)

// Severities returns the known severities, lightest first.
func Severities() []Severity { return []Severity{Info, Minor, Warning, Major, Critical} }

// Normal returns the known severity that equals s in any case of its letters, and
// Warning for anything else, so that a reader counts and filters by few values.
func (s Severity) Normal() Severity {
	for _, known := range Severities() {
		if strings.EqualFold(string(s), string(known)) {
			return known
		}
	}
	return Warning
}

// Severity returns the severity of c on the wire. An unknown code is critical, so
// that somebody looks at it.
func (c Code) Severity() Severity {
	switch c {
	case Started, Downloaded, Staged, StagedManual, Completed, Superseded, Withdrawn:
		return Info
	case Disabled, ChannelNotAllowed, VersionTooOld, VersionInvalid, SequenceTooOld, InProgress, Unhealthy, NotStarted,
		URLInvalid, NetworkError, ManifestInvalid, ManifestChanged, ArchMismatch, VariantMismatch,
		ChecksumMismatch, ExtractFailed, ConfigRefused, DataNotSaved, DiskFull:
		return Warning
	default:
		return Critical
	}
}

// Codes returns every code, in the order in which an upgrade can report them.
func Codes() []Code {
	return []Code{
		Started, Downloaded, Staged, StagedManual, Completed, RolledBack, Superseded, Withdrawn, NotStarted,
		SignatureInvalid, IdentityNotAllowed, RekorInvalid,
		Disabled, ChannelNotAllowed, VersionTooOld, VersionInvalid, SequenceTooOld, InProgress, Unhealthy,
		URLInvalid, NetworkError, ManifestInvalid, ManifestChanged, ArchMismatch, VariantMismatch,
		ChecksumMismatch, ExtractFailed, ConfigRefused, DataNotSaved, DiskFull, Internal,
	}
}

// Error is a failure that leaves the process. It has the code that the manager
// receives, and wraps the cause.
type Error struct {
	Code Code
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an *Error with a code and a formatted message; %w wraps an error.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}
