package rig

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
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
	for _, v := range versions {
		out := filepath.Join(dir, filepath.Base(command)+"-"+v)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "sim",
			"-ldflags", "-s -w -X main.version="+v, "-o", out, "github.com/bilbycast/edge-agent/"+command)
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s %s: %w\n%s", command, v, err, text)
		}
		programs[v] = out
	}
	return programs, nil
}
