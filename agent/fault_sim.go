//go:build sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/release"
)

// misbehave obeys the file sim-fault beside the program, which
// `manager-sim release publish --fault` puts into a release. Simulation builds
// have it so that one real program can be released good and bad.
func misbehave(ctx context.Context, a *Agent) error {
	b, err := os.ReadFile(filepath.Join(programDir(), "sim-fault"))
	if err != nil {
		return nil
	}
	fault := strings.TrimSpace(string(b))
	a.log.Warn().Str("fault", fault).Msg("misbehaving as the release says")
	switch fault {
	case "exits-at-once":
		return errors.New("simulated crash")
	case "hangs":
		<-ctx.Done()
		return nil
	case "never-authenticates":
		a.c.urls = []string{"wss://127.0.0.1:1/ws/node"} // nobody listens there
	case "never-healthy":
		a.c.Check = func(context.Context) error { return errors.New("simulated fault") }
	case "wrong-version":
		a.c.version = release.MustVersion("0.0.1")
	default:
		return fmt.Errorf("sim-fault: %q is not a fault that this build knows", fault)
	}
	return nil
}

// programDir is the directory of the version that runs.
func programDir() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	return filepath.Dir(exe)
}
