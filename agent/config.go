package agent

import (
	"bytes"
	"context"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
)

// reportConfig logs what is wrong with config.toml, and sets its mode where others may
// read a secret in it.
func (a *Agent) reportConfig() {
	w := a.c.Warnings
	for _, problem := range w.List {
		if text := problem.String(); text != w.Withhold {
			a.log.Warn().Msg(text)
		}
	}
	if w.Withhold != "" {
		a.log.Error().Str("reason", w.Withhold).Msg("upgrades are not possible because of config.toml; the service runs")
		a.showUnavailable()
	}
	if w.Path == "" {
		return
	}
	if err := a.c.Layout.Disk().Chmod(w.Path, 0o600); err != nil {
		a.log.Warn().Err(err).Msg("the mode of config.toml was not restricted")
		return
	}
	a.log.Info().Str("path", w.Path).Msg("mode restricted to 0600: other users may no longer read or change this file")
}

// keepConfig keeps a copy of a config.toml that was accepted, for the start at which the
// file cannot be used. A version on trial keeps none, because the version that a
// rollback returns to must understand the copy.
func (a *Agent) keepConfig(ctx context.Context) {
	text, l := a.c.Warnings.Accepted, a.c.Layout
	if text == nil {
		return
	}
	old, err := fsutil.ReadFile(l.AcceptedConfig(), config.MaxFile)
	if err == nil && bytes.Equal(old, text) {
		return
	}
	err = l.Locked(ctx, func() error { return l.Disk().WriteFile(l.AcceptedConfig(), text, 0o600) })
	if err != nil {
		a.log.Warn().Err(err).Msg("no copy of config.toml was kept; the service does not start if the file is damaged")
	}
}
