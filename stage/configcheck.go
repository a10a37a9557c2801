package stage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Exit codes of `config check`, as `edge-agent config check --help` says.
const (
	configUnfit = 1 // the version would not run, or would refuse upgrades
	configWarns = 3 // it would run, and offer upgrades, but ignores a part of the file
)

// CheckConfig lets the installed version v check the config.toml of its root: it runs
// `<program> config check FILE`, as the user of this process, if the manifest of v declares
// the command. A version that does not declare it, and a root whose configuration lies
// elsewhere, are not checked. It must not be called under the root's lock.
//
// The warning is what v would ignore, in its own words. An error of the code ConfigRefused
// is why v would not run, or would refuse upgrades. A declared command that cannot be
// started, does not end within DefaultLimits, or exits with any other code is an error as well: such a
// program is not sound.
func CheckConfig(ctx context.Context, l state.Layout, v release.Version) (warning string, err error) {
	return checkConfig(ctx, l, v, DefaultLimits)
}

func checkConfig(ctx context.Context, l state.Layout, v release.Version, limits Limits) (warning string, err error) {
	m, err := readMarker(l, v)
	if err != nil || !slices.Contains(m.Commands, release.CommandConfigCheck) || !filepath.IsLocal(m.Program) {
		return "", nil
	}
	if _, err := os.Lstat(l.ConfigFile()); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	dir := l.Version(v)
	bin := filepath.Join(dir, m.Program)
	words, err := execute(ctx, limits, bin, dir, "config", "check", l.ConfigFile())
	if err == nil {
		return "", nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if words = release.Foreign(words, headLimit); words == "" {
		words = "it printed no reason"
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		switch exit.ExitCode() {
		case configUnfit:
			return "", release.Errorf(release.ConfigRefused, "%s would not run with config.toml, or would refuse upgrades: %s", v, words)
		case configWarns:
			return words, nil
		}
	}
	return "", unsound(release.ForeignError(err, 2*headLimit), "check of config.toml by "+v.String(), m.Program, bin, "config check")
}
