package rig

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Build builds the simulation build of edge-agent for each version, with the
// Go toolchain, in or below the module's directory. It returns the programs by
// version. Only the first build of a machine takes long.
func Build(ctx context.Context, dir string, versions ...string) (map[string]string, error) {
	return BuildCommand(ctx, "cmd/edge-agent", dir, versions...)
}

// BuildCommand is Build for another program of this module that stamps
// main.version.
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
