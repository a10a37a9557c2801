package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
)

// reportConfig reports what is wrong with config.toml, and sets its mode where others may
// read a secret in it. Health has the reason to withhold upgrades in UpgradeUnavailable,
// unless upgrades are disabled.
func (a *Agent) reportConfig() {
	w := a.c.Warnings
	for i, problem := range w.List {
		text := problem.String()
		if text != w.Withhold {
			a.log.Warn(text)
		}
		if ofMode := w.Path != "" && i == len(w.List)-1; !ofMode && (text != w.Withhold || !a.c.Upgrade.Enabled) {
			a.warn(problem.Cause, problem.Remedy)
		}
	}
	if w.Withhold != "" {
		a.log.Error("upgrades are not possible because of config.toml; the service runs", "reason", w.Withhold)
		a.showUnavailable()
	}
	if w.Path == "" {
		return
	}
	if err := a.restrictConfig(w.Path); err != nil {
		a.log.Warn("the mode of config.toml was not restricted", "error", err)
		a.warn(fmt.Sprintf("other users may read or change config.toml, and the agent could not change its mode (%v)", err), "as root, run: chmod 600 "+w.Path)
		return
	}
	a.log.Info("mode restricted to 0600: other users may no longer read or change this file", "path", w.Path)
}

// restrictConfig sets the mode of the file at path to 0600.
func (a *Agent) restrictConfig(path string) error {
	if err := a.c.Layout.Disk().Chmod(path, 0o600); err != nil {
		return err
	}
	// Some file systems ignore a mode without an error.
	st, err := os.Stat(path)
	if err == nil && st.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s still has mode %04o", path, st.Mode().Perm())
	}
	return err
}

// keepConfig keeps a copy of a config.toml that was accepted, for the start at which the
// file cannot be used. A version on trial keeps none, because the version that a
// rollback returns to must understand the copy.
func (a *Agent) keepConfig(ctx context.Context) {
	text, l := []byte(a.c.Warnings.Accepted.Reveal()), a.c.Layout
	if len(text) == 0 {
		return
	}
	old, err := fsutil.ReadFile(l.AcceptedConfig(), config.MaxFile)
	if err == nil && bytes.Equal(old, text) {
		return
	}
	err = l.Locked(ctx, func() error { return l.Disk().WriteFile(l.AcceptedConfig(), text, 0o600) })
	if err != nil {
		a.log.Warn("no copy of config.toml was kept; the service does not start if the file is damaged", "error", err)
	}
}
