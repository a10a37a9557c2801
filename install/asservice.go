package install

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/systemd"
)

// OpenAsService is config.Open for a command that sees what the service sees, and writes
// nothing. A process of root becomes the owner of the install root for good. Started by a
// person, it also adopts the environment of the agent's unit, which may name a proxy.
func OpenAsService(ctx context.Context, path string) (config.Settings, error) {
	byRoot := os.Geteuid() == 0 && os.Getenv("INVOCATION_ID") == ""
	if err := fsutil.BecomeOwner(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return config.Settings{}, err
	}
	s, _, err := config.Open(path)
	if err != nil {
		return s, err
	}
	if err := fsutil.BecomeOwner(s.Layout.Root()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if byRoot {
		adoptEnvironment(ctx, AgentUnit(s.Config))
	}
	return s, nil
}

// adoptEnvironment sets the variables of a unit, if it has any.
func adoptEnvironment(ctx context.Context, unit string) {
	env, err := systemd.Environment(ctx, unit)
	if err != nil { // without systemd there is no unit
		return
	}
	for k, v := range env {
		os.Setenv(k, v)
	}
}
