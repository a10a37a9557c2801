package rig

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
)

// Build builds edge-agent for the simulation, once for each version, and returns the
// programs by version. It runs the Go toolchain, and must run in the module's directory
// or below. Only the first build on a machine takes long.
func Build(ctx context.Context, dir string, versions ...string) (map[string]string, error) {
	return BuildCommand(ctx, "cmd/edge-agent", dir, versions...)
}

// BuildCommand is Build for another program of this module with a variable main.version.
func BuildCommand(ctx context.Context, command, dir string, versions ...string) (map[string]string, error) {
	programs := make(map[string]string)
	errs := make([]error, len(versions))
	var wg sync.WaitGroup
	for i, v := range versions {
		out := filepath.Join(dir, filepath.Base(command)+"-"+v)
		programs[v] = out
		build := func() { errs[i] = buildVersion(ctx, command, v, out) }
		if i == 0 {
			build() // compiles the packages; the others only link
		} else {
			wg.Go(build)
		}
	}
	wg.Wait()
	return programs, cmp.Or(errs...)
}

// buildVersion copies a program out of Go's build cache. Go keeps the programs of `go run`
// there, but not those of `go build`, which links each time.
func buildVersion(ctx context.Context, command, version, out string) error {
	cmd := exec.CommandContext(ctx, "go", "run", "-trimpath", "-tags", "sim", "-ldflags", "-s -w -X main.version="+version,
		"-exec", "cp", "github.com/bilbycast/edge-agent/"+command, out)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s %s: %w\n%s", command, version, err, text)
	}
	return nil
}
