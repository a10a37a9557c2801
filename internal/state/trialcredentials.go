package state

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/fsutil"
)

// TrialCredentials returns the copy of credentials.json that was made when a trial began.
func (l Layout) TrialCredentials(id string) string {
	return filepath.Join(l.trialDir(id), credentialsName)
}

// RestoreCredentials puts that copy in place of credentials.json if they differ: the version
// on trial may have destroyed them. s is rolled back. The caller holds the root's lock, records s
// after it, and then removes the copy, so that a failure or an interruption repeats it.
func (l Layout) RestoreCredentials(s State) (restored bool, err error) {
	if s.TrialID == "" {
		return false, nil
	}
	kept, err := fsutil.ReadFile(l.TrialCredentials(s.TrialID), maxTrialFile)
	if err != nil || len(kept) == 0 {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	now, err := fsutil.ReadFile(l.CredentialsFile(), maxTrialFile)
	if err == nil && bytes.Equal(now, kept) {
		return false, nil
	}
	if err == nil && len(now) > 0 { // they may be of a manager that this node cannot ask again
		if err := l.disk.WriteFile(l.path(replacedName), now, 0o600); err != nil {
			return false, err
		}
	}
	return true, l.disk.WriteFile(l.CredentialsFile(), kept, 0o600)
}

// CredentialsDue reports whether RestoreCredentials has not succeeded yet for the rollback in s.
func (l Layout) CredentialsDue(s State) bool {
	if s.Status != RolledBack || s.TrialID == "" {
		return false
	}
	st, err := os.Lstat(l.TrialCredentials(s.TrialID))
	return err == nil && st.Size() > 0
}

// forgetCredentials removes the copy of the trial that s rolled back.
func (l Layout) forgetCredentials(s State) error {
	if !l.CredentialsDue(s) {
		return nil
	}
	path := l.TrialCredentials(s.TrialID)
	err := l.disk.Discard(path)
	if err == nil {
		return l.disk.SyncDir(filepath.Dir(path))
	}
	f, e := l.disk.Create(path, os.O_WRONLY, 0o600) // an empty one is as good as none
	if e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(err, f.Truncate(0), f.Close())
}

// KeepCredentials makes the present credentials.json the copy that a rollback of the trial in
// s brings back: the manager that last-good knew accepted them. The caller holds the root's
// lock.
func (l Layout) KeepCredentials(s State) error {
	now, err := fsutil.ReadFile(l.CredentialsFile(), maxTrialFile)
	if err != nil {
		return err
	}
	if kept, err := fsutil.ReadFile(l.TrialCredentials(s.TrialID), maxTrialFile); err == nil && bytes.Equal(now, kept) {
		return nil
	}
	return l.disk.WriteFile(l.TrialCredentials(s.TrialID), now, 0o600)
}
