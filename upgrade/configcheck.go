package upgrade

import (
	"context"
	"fmt"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// checkConfig lets the staged version v check the node's config.toml, before it is
// committed; see stage.CheckConfig. What v would ignore is logged. In attached mode
// config.toml is the agent's own, and a first installation has yet to write it.
//
// Shelve only logs a refusal: an operator may correct the file before Apply, which checks
// it again.
func (p *Pipeline) checkConfig(ctx context.Context, v release.Version, end End) error {
	n := p.c.Node
	if end == Install || n.Service.Unit != "" {
		return nil
	}
	warning, err := stage.CheckConfig(ctx, n.Layout, v)
	log := p.c.Log.With("version", v.String())
	switch {
	case err != nil && end == Shelve && release.CodeOf(err) == release.ConfigRefused:
		log.Warn("edge-agent apply will refuse the new version until config.toml is corrected", "error", err)
		return nil
	case warning != "":
		log.Warn(ignores(v, warning))
	}
	return err
}

// checkConfigForTrial is checkConfig for a version that an operator wants on trial. An
// operator's rollback is a remedy, so there a refusal is only a warning.
func checkConfigForTrial(ctx context.Context, l state.Layout, v release.Version, rollback bool) (warnings []string, err error) {
	if c, _, err := config.Open(l.ConfigFile()); err == nil && c.Service.Unit != "" {
		return nil, nil // the file is the agent's own
	}
	warning, err := stage.CheckConfig(ctx, l, v)
	switch {
	case err != nil && rollback && ctx.Err() == nil:
		return []string{err.Error()}, nil
	case warning != "":
		warnings = []string{ignores(v, warning)}
	}
	return warnings, err
}

func ignores(v release.Version, words string) string {
	return fmt.Sprintf("%s runs with config.toml, but not with everything in it: %s", v, words)
}
