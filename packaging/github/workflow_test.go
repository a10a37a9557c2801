package github_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// step is a step of a workflow that runs a script.
type step struct{ name, script string }

// parseWorkflow reads the scripts of release.yml and the job's environment. It supports
// only the YAML of this file.
func parseWorkflow(t *testing.T) (steps []step, env map[string]string) {
	t.Helper()
	b, err := os.ReadFile("release.yml")
	if err != nil {
		t.Fatal(err)
	}
	env = map[string]string{}
	value := regexp.MustCompile(`^      ([A-Z_]+): (\S.*?)(?:\s+#.*)?$`)
	inScript := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "      - name: "); ok {
			steps = append(steps, step{name: name})
			inScript = false
			continue
		}
		if len(steps) == 0 {
			if m := value.FindStringSubmatch(line); m != nil {
				env[m[1]] = m[2]
			}
			continue
		}
		s := &steps[len(steps)-1]
		switch {
		case line == "        run: |":
			inScript = true
		case strings.HasPrefix(line, "        run: "):
			s.script = strings.TrimPrefix(line, "        run: ") + "\n"
		case inScript && strings.HasPrefix(line, "          "):
			s.script += strings.TrimPrefix(line, "          ") + "\n"
		case strings.HasPrefix(strings.TrimSpace(line), "#"):
		default:
			t.Fatalf("release.yml: %q is in no form that this test knows", line)
		}
	}
	for _, s := range steps {
		if s.script == "" {
			t.Fatalf("release.yml: the step %q has no script", s.name)
		}
	}
	return steps, env
}

// No step needs a file of this project in the publisher's repository, runs a third-
// party action, or contains an owner's name.
func TestWorkflowIsForAnyRepository(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("release.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, no := range []string{"./cmd/", " ./packaging", "uses:", "Bilbycast", "acme", ".github/workflows/nightly"} {
		for line := range strings.Lines(string(b)) {
			if text, _, _ := strings.Cut(line, "# "); strings.Contains(text, no) {
				t.Errorf("release.yml has %q: %s", no, line)
			}
		}
	}
	_, env := parseWorkflow(t)
	for _, name := range []string{"DEVICE_TYPE", "EDGE_AGENT", "PRERELEASE_CHANNEL", "COSIGN", "GH_TOKEN", "TAG"} {
		if env[name] == "" {
			t.Errorf("release.yml sets no %s", name)
		}
	}
	doc, err := os.ReadFile("../../docs/publish.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"signerRepository", "signerWorkflow", "signerRef", "signerRepositoryID", "signerOwnerID", "cert.built"} {
		if !strings.Contains(string(doc), name) {
			t.Errorf("docs/publish.md does not name %s", name)
		}
	}
	if n := strings.Count(string(b), "YOURS: "); n != 5 {
		t.Errorf("release.yml marks %d places as the publisher's", n)
	}
}

// A pre-release is published on its own channel and marked as a pre-release. A "-" in
// the build metadata of a version does not make it one.
func TestPrereleases(t *testing.T) {
	t.Parallel()
	steps, env := parseWorkflow(t)
	for tag, pre := range map[string]bool{"v1.5.0": false, "v1.5.0-rc.1": true, "v1.5.0+linux-arm": false, "v1.5.0-rc.1+linux-arm": true} {
		bin := t.TempDir()
		for _, name := range []string{"release-manifest", "gh", "git"} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho "+name+" \"$@\"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range steps {
			if s.name != "pack" && s.name != "publish" {
				continue
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-e", "-c", s.script)
			cmd.Dir = bin
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "TAG="+tag, "PRERELEASE_CHANNEL="+env["PRERELEASE_CHANNEL"], "WORKFLOW=w")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %s: %v %s", tag, s.name, err, out)
			}
			words := string(out)
			channel := "--channel stable "
			if pre {
				channel = "--channel beta "
			}
			if s.name == "pack" && !strings.Contains(words, channel) || s.name == "publish" && strings.Contains(words, " --prerelease ") != pre {
				t.Errorf("%s: %s", tag, words)
			}
		}
	}
}
