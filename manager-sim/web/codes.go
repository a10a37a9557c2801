package web

import (
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/release"
)

// failure says why an upgrade failed. Cause is the node's own message and comes
// first; Meaning and Remedy are general help on the code.
type failure struct {
	Cause, Code, Meaning, Remedy string
}

// failureOf returns the failure with the general help on its code.
func failureOf(code, cause string) *failure {
	f := &failure{Cause: cause, Code: code}
	help, ok := help[code]
	switch {
	case ok:
		f.Meaning, f.Remedy = help[0], help[1]
	case code != "":
		f.Meaning, f.Remedy = "This manager has no description of the code.", "See the node's events and its journal."
	case cause == "":
		f.Meaning, f.Remedy = "The node gave no reason.", "See the node's events and its journal."
	}
	return f
}

// help is what a failure's code means, and what an operator can do.
var help = map[string][2]string{
	string(release.Disabled):           {"Upgrades are disabled in the node's own configuration.", "Set enabled = true in [upgrade] of its config.toml and restart the service."},
	string(release.ChannelNotAllowed):  {"The node does not allow releases of this channel.", "Add the channel to allowed_channels in its config.toml and restart the service."},
	string(release.VersionTooOld):      {"The version is older than the node's configuration, or an installed release, allows.", "Choose a newer version."},
	string(release.SequenceTooOld):     {"The release is older than one that this node has already run.", "Choose a newer release."},
	string(release.VersionInvalid):     {"Not a valid version.", "Choose one from the list."},
	string(release.InProgress):         {"Another upgrade was running on the node, or a version was on trial.", "Wait until that upgrade has ended, then retry."},
	string(release.SignatureInvalid):   {"The signature of the manifest is not valid.", "Treat it as tampering until it is explained: compare the release with its workflow run."},
	string(release.IdentityNotAllowed): {"The release was signed by an identity that the node does not allow.", "If the release workflow was renamed, publish one release from the old workflow that carries the new allowlist."},
	string(release.RekorInvalid):       {"No transparency log that the node trusts contains the signature.", "Publish the release again, or update the node's trust root: edge-agent trust update."},
	string(release.URLInvalid):         {"The manifest names a file outside its own release.", "Publish the release again."},
	string(release.NetworkError):       {"The node could not download the release.", "Check that the node can reach the release host, and its proxy settings."},
	string(release.ManifestInvalid):    {"The manifest is malformed or does not match this request.", "Publish the release again."},
	string(release.ArchMismatch):       {"The release has no build for the node's architecture.", "Publish the release for this architecture."},
	string(release.VariantMismatch):    {"The release has no build of this variant.", "Publish the release in this variant."},
	string(release.ChecksumMismatch):   {"The downloaded archive is not the one that was signed.", "Retry. If it happens again, report it as a security problem."},
	string(release.ExtractFailed):      {"The archive could not be unpacked, or its program does not run.", "Publish the release again."},
	string(release.DiskFull):           {"The node has too little free space. It needs three times the size of the archive.", "Free space on the node, then retry."},
	string(release.RolledBack):         {"The new version did not become healthy. The node runs the previous version again.", "Read the journal in the node's events, or journalctl on the node, before you retry. It is safe to investigate."},
	string(release.Internal):           {"A defect, or an I/O error on the node.", "See the node's journal."},
	rollout.TimeLimit:                  {"The node reported no outcome within the time limit. A later report still counts.", "Check whether the node is online. Retry, or skip it."},
}
