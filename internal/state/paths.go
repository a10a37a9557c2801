package state

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// Names in an install root. No other package spells them: each has a method.
const (
	currentName            = "current"
	previousName           = "previous"
	lastGoodName           = "last-good"
	versionsName           = "versions"
	downloadsName          = "downloads"
	outboxName             = "outbox"
	trustName              = "trust"
	trustNewName           = ".trust-new"
	stateName              = "state.json"
	startName              = "watchdog.json"
	blindName              = "watchdog.blind"
	rowName                = "watchdog.row"
	lockName               = ".lock"
	agentLockName          = ".agent.lock"
	configName             = "config.toml"
	acceptedConfigName     = configName + ".accepted"
	credentialsName        = "credentials.json"
	replacedName           = credentialsName + ".replaced"
	credentialsReserveName = ".credentials-reserve"
	managerName            = "manager.json"
	hooksName              = "hooks.json"
	restartName            = "restart"
	restartDoneName        = ".restart"
	trialName              = "trial"
	swapName               = "swap.json"
	startsName             = "starts.json"
	judgeName              = "judge.json"
	acceptedName           = "accepted.json"
	actionsName            = "actions"
)

// ReleaseFile is the name of the file, in the top of a version's directory, that
// records which release the directory was made from. Package stage writes it.
const ReleaseFile = ".release.json"

// DigestsFile is the name of the file beside it with the SHA-256 of every file that was
// staged. Package stage writes it.
const DigestsFile = ".release.sha256"

// PartialPrefix starts the name of a version's directory that is not complete.
const PartialPrefix = ".partial-"

// UnverifiedSuffix ends the name of a download that is not verified.
const UnverifiedSuffix = ".unverified"

// corruptSuffix ends the name of a damaged file that a writer set aside.
const corruptSuffix = ".corrupt"

// The methods below do not check whether the paths exist.

func (l Layout) path(name string) string { return filepath.Join(l.root, name) }
func (l Layout) lockFile() string        { return l.path(lockName) }
func (l Layout) startFile() string       { return l.path(startName) }

// Root returns the install root.
func (l Layout) Root() string { return l.root }

// Current returns the link to the version that systemd starts.
func (l Layout) Current() string { return l.path(currentName) }

// LastGood returns the link to the newest version that proved healthy. The
// watchdog runs from there.
func (l Layout) LastGood() string { return l.path(lastGoodName) }

// Previous returns the link to the version that a rollback returns to.
func (l Layout) Previous() string { return l.path(previousName) }

// Links returns the three links to versions.
func (l Layout) Links() []string { return []string{l.Current(), l.LastGood(), l.Previous()} }

// Versions returns the directory of the versions.
func (l Layout) Versions() string { return l.path(versionsName) }

// Version returns the directory of v.
func (l Layout) Version(v release.Version) string { return filepath.Join(l.Versions(), v.String()) }

// Partial returns the directory where v is extracted before it becomes Version(v).
func (l Layout) Partial(v release.Version) string {
	return filepath.Join(l.Versions(), PartialPrefix+v.String())
}

// IsPartial reports whether Partial gives that name to the directory of a version.
func IsPartial(name string) bool {
	version, ok := strings.CutPrefix(name, PartialPrefix)
	_, err := release.ParseVersion(version)
	return ok && err == nil && !strings.HasPrefix(name, abilityPrefix)
}

// Downloads returns the directory of the tarballs.
func (l Layout) Downloads() string { return l.path(downloadsName) }

// Download returns where the tarball with that SHA-256, in hex, is downloaded to.
func (l Layout) Download(sha256 string) string {
	return filepath.Join(l.Downloads(), sha256+UnverifiedSuffix)
}

// StagingLock returns the file that the process locks which stages or removes
// versions.
func (l Layout) StagingLock() string { return filepath.Join(l.Downloads(), lockName) }

// AgentLock returns the file that an agent locks while it runs, so that a root has one.
func (l Layout) AgentLock() string { return l.path(agentLockName) }

// OutboxDir returns the directory of the events that the manager has not yet
// acknowledged. See Outbox.
func (l Layout) OutboxDir() string { return l.path(outboxName) }

// TrustDir returns the directory of a trust root that is newer than the
// compiled-in one, with its proof.
func (l Layout) TrustDir() string { return l.path(trustName) }

// Dirs returns the directories that an administrator may replace by a link or a
// mount point.
func (l Layout) Dirs() []string {
	return []string{l.Versions(), l.Downloads(), l.OutboxDir(), l.TrustDir()}
}

// StateFile returns state.json, of mode 0600.
func (l Layout) StateFile() string { return l.path(stateName) }

// ConfigFile returns the node's configuration, of mode 0600.
func (l Layout) ConfigFile() string { return l.path(configName) }

// AcceptedConfig returns the copy of the last configuration that run accepted, of mode
// 0600.
func (l Layout) AcceptedConfig() string { return l.path(acceptedConfigName) }

// CredentialsFile returns what the node got at its registration, of mode 0600.
func (l Layout) CredentialsFile() string { return l.path(credentialsName) }

// ManagerFile returns what the agent learned of its manager in its last session, of mode
// 0600.
func (l Layout) ManagerFile() string { return l.path(managerName) }

func (l Layout) hooksFile() string { return l.path(hooksName) }

// CredentialsReserve returns the file that reserves the space of CredentialsFile
// during a registration.
func (l Layout) CredentialsReserve() string { return l.path(credentialsReserveName) }

// Files returns the files that an administrator may replace by a link.
func (l Layout) Files() []string {
	return []string{l.ConfigFile(), l.CredentialsFile(), l.StateFile()}
}

// Written returns what the agent must be able to write to, besides the root itself.
func (l Layout) Written() []string {
	return append(l.Dirs(), l.StateFile(), l.CredentialsFile())
}

// RestartFile returns the file with which the agent has its service restarted. See
// AskRestart.
func (l Layout) RestartFile() string { return l.path(restartName) }

// RestartSpare returns the name of RestartFile when its request was withdrawn, or taken by the
// unit of an earlier version.
func (l Layout) RestartSpare() string { return l.path(restartDoneName) }

// copyTime is the form of the time in the name of a copy of the configuration.
const copyTime = "20060102-150405"

// ConfigCopy returns the name that the configuration is copied to when it is
// replaced at now. Copies hold secrets, as the configuration does.
func (l Layout) ConfigCopy(now time.Time) string {
	return l.path(configName + ".before-" + now.UTC().Format(copyTime))
}

// IsConfigCopy reports whether path is a name of ConfigCopy.
func (l Layout) IsConfigCopy(path string) bool {
	stamp, ok := strings.CutPrefix(path, l.path(configName+".before-"))
	_, err := time.Parse(copyTime, stamp)
	return ok && err == nil
}

// IsSecret reports whether a file of that path holds a token or a credential.
func (l Layout) IsSecret(path string) bool {
	return path == l.CredentialsFile() || strings.HasPrefix(path, l.ConfigFile())
}

// RootOf returns the install root in which program, a path without links, is the program
// of a version. ok is false if it is not in a version's directory.
func RootOf(program string) (l Layout, ok bool) {
	for dir := filepath.Dir(program); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		versions := filepath.Dir(dir)
		if _, err := release.ParseVersion(filepath.Base(dir)); err != nil || filepath.Base(versions) != versionsName {
			continue
		}
		l, err := At(filepath.Dir(versions))
		return l, err == nil
	}
	return Layout{}, false
}

// linkTarget returns what a link to v holds. It is relative, so that a root can be
// moved.
func linkTarget(v release.Version) string { return filepath.Join(versionsName, v.String()) }

// IsLinkTarget reports whether a link that holds target may have been made by the
// agent.
func IsLinkTarget(target string) bool {
	version, ok := strings.CutPrefix(target, versionsName+"/")
	_, err := release.ParseVersion(version)
	return ok && err == nil
}

// Makes reports whether the agent gives files in dir, one of Dirs, names like that
// one. It knows no names of files in TrustDir, which KeepTrust is given.
func (l Layout) Makes(dir, name string) bool {
	if strings.HasPrefix(name, fsutil.TempPrefix) || strings.Contains(name, corruptSuffix) {
		return true
	}
	switch dir {
	case l.Versions():
		_, err := release.ParseVersion(name)
		return err == nil || strings.HasPrefix(name, PartialPrefix) || strings.HasPrefix(name, removedPrefix)
	case l.Downloads():
		return strings.HasSuffix(name, UnverifiedSuffix)
	case l.OutboxDir():
		number, _, ok := strings.Cut(name, "-")
		return ok && strings.HasSuffix(name, entrySuffix) && strings.Trim(number, "0123456789") == ""
	}
	return false
}
