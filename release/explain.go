package release

// Explanation describes a code to an operator, in sentences.
type Explanation struct {
	Meaning string // what happened
	Remedy  string // what to do; empty for a code of Severity Info that needs no action
}

// Explain returns the explanation of c. It is zero for a code that this version does
// not know. Every code of Codes has a Meaning. The pages, the commands and
// docs/troubleshoot.md use these texts, so that they cannot contradict each other.
func Explain(c Code) Explanation {
	switch c {
	case Started:
		return Explanation{Meaning: "The node accepted the command: its own policy allows the release."}
	case Downloaded:
		return Explanation{Meaning: "The archive is downloaded and has the signed SHA-256. The manifest's signature, signer and log entry are valid."}
	case Staged:
		return Explanation{Meaning: "The release is unpacked on disk, and its self-check passed. The service restarts into it."}
	case StagedManual:
		return Explanation{"The release is staged and waits for an operator.", "Apply it on the node: edge-agent apply."}
	case Completed:
		return Explanation{Meaning: "The new version authenticated to the manager and stayed healthy."}
	case RolledBack:
		return Explanation{"The new version did not become healthy. The node runs the previous version again.",
			"Read the journal in the node's events, or journalctl on the node, before you retry. It is safe to investigate."}
	case Superseded:
		return Explanation{Meaning: "The version was unproven: its own check held, and its link to the manager was neither proven nor disproven. A newer version took its place."}
	case Withdrawn:
		return Explanation{Meaning: "The manager, or an operator on the device, withdrew the upgrade before the swap. The node still runs its version; what was downloaded stays."}
	case NotStarted:
		return Explanation{"Nothing started the new version within a health window after the swap. The node took the swap back, and says nothing about the version.",
			"On the device, run edge-agent doctor: it names what does not serve the restart. Then retry."}
	case SignatureInvalid:
		return Explanation{"The signature of the manifest is not valid.", "Treat it as tampering until it is explained: compare the release with its workflow run."}
	case IdentityNotAllowed:
		return Explanation{"The release was signed by an identity that the node does not allow.",
			"If the release workflow was renamed, publish one release from the old workflow that carries the new allowlist."}
	case RekorInvalid:
		return Explanation{"No transparency log that the node trusts contains the signature.", "Publish the release again, or update the node's trust root: edge-agent trust update."}
	case Disabled:
		return Explanation{"Upgrades are disabled in the node's own configuration.", "Set enabled = true in [upgrade] of its config.toml and restart the service."}
	case ChannelNotAllowed:
		return Explanation{"The node does not allow releases of this channel.", "Add the channel to allowed_channels in its config.toml and restart the service."}
	case VersionTooOld:
		return Explanation{"The version is older than the node's configuration, or an installed release, allows.", "Choose a newer version."}
	case VersionInvalid:
		return Explanation{"Not a valid version.", "Choose one from the list."}
	case SequenceTooOld:
		return Explanation{"The release is older than one that this node has already run.", "Choose a newer release."}
	case InProgress:
		return Explanation{"Another upgrade was running on the node, or a version was on trial.", "Wait until that upgrade has ended, then retry."}
	case Unhealthy:
		return Explanation{"The version that the node runs failed its own check before the swap, or what it depends on did not answer. A trial could not tell a bad version from a sick node.",
			"Fix what the check reports, then retry. If this release is the repair, request it with the choice \"repair\" (--repair); its dependency must answer all the same."}
	case URLInvalid:
		return Explanation{"The manifest names a file outside its own release, or the release host redirected to an address that is not allowed.",
			"Publish the release again. If the message names a redirect, check the node's network for a captive portal."}
	case NetworkError:
		return Explanation{"The node could not download the release.", "Check that the node can reach the release host, and its proxy settings."}
	case ManifestInvalid:
		return Explanation{"The manifest is malformed or does not match this request.", "Publish the release again."}
	case ManifestChanged:
		return Explanation{"The version was published again with another manifest after the manager requested it, or the node runs another release of the same name. The node changed nothing.",
			"Find out who published it again. Publish the release as a new version, and request that."}
	case ArchMismatch:
		return Explanation{"The release has no build for the node's architecture, or its program cannot run there.", "Publish the release for this architecture."}
	case VariantMismatch:
		return Explanation{"The release has no build of this variant.", "Publish the release in this variant."}
	case ChecksumMismatch:
		return Explanation{"The downloaded archive is not the one that was signed.", "Retry. If it happens again, report it as a security problem."}
	case ExtractFailed:
		return Explanation{"The archive could not be unpacked, or its program does not run.", "Publish the release again."}
	case ConfigRefused:
		return Explanation{"The new version would not run with the node's config.toml, or would refuse upgrades because of it. The node still runs the previous version.",
			"Correct config.toml on the node as the message says, then retry."}
	case DataNotSaved:
		return Explanation{"The service on the node did not save its data for a rollback, or refused the trial of the new version. The node still runs the previous version.",
			"Read the message, which is the service's, and its journal; then retry."}
	case DiskFull:
		return Explanation{"The node has too little free space. It needs three times the size of the archive.", "Free space on the node, then retry."}
	case Internal:
		return Explanation{"The node met an I/O error or a defect.", "Read the node's journal. Report a defect with the lines that you find."}
	}
	return Explanation{}
}
