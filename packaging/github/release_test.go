package github_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
)

const (
	repository = "umbrella/player" // of a publisher who is not this project
	workflow   = ".github/workflows/publish.yml"
	tag        = "v2.0.0"
)

// Run as cosign, this program signs with a simulated Sigstore, with the identity of the
// workflow run in the environment.
func TestMain(m *testing.M) {
	if dir := os.Getenv("FAKE_COSIGN"); dir != "" {
		if err := signBlob(dir, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "cosign:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func signBlob(dir string, args []string) error {
	if len(args) != 5 || args[0] != "sign-blob" || args[1] != "--yes" || args[2] != "--bundle" {
		return fmt.Errorf("the arguments %q are not those of a keyless signature", args)
	}
	sig, err := fakesig.Ensure(dir)
	if err != nil {
		return err
	}
	blob, err := os.ReadFile(args[4])
	if err != nil {
		return err
	}
	identity, ref, _ := strings.Cut(os.Getenv("GITHUB_WORKFLOW_REF"), "@")
	repo := os.Getenv("GITHUB_REPOSITORY")
	bundle, err := sig.Sign(blob, fakesig.GitHub(repo, strings.TrimPrefix(identity, repo+"/"), ref, os.Getenv("GITHUB_SHA")), time.Now(), fakesig.Opt{RekorV2: true})
	if err != nil {
		return err
	}
	return os.WriteFile(args[3], bundle, 0o644)
}

// fakes replace the runner's programs that a test cannot use. go builds for the
// simulation, from this checkout in place of the module proxy. Its output for another
// machine is a placeholder, because nothing runs it here.
var fakes = map[string]string{
	"cosign": "#!/bin/sh\nFAKE_COSIGN=$FAKE_SIGSTORE exec \"$FAKE_SELF\" \"$@\"\n",
	"gh": `#!/bin/sh -e
test "$1 $2 $4 $5" = "release create --verify-tag --notes"
to="$FAKE_WWW/$GITHUB_REPOSITORY/releases/download/$3"
shift 6
mkdir -p "$to"
cp "$@" "$to/"
`,
	"go": `#!/bin/sh -e
case "$*" in
"install github.com/sigstore/cosign/v3/cmd/cosign@"*) exit 0 ;;
"install github.com/bilbycast/edge-agent/cmd/release-manifest@"?*)
	cd "$FAKE_MODULE"
	exec "$FAKE_GO" build -trimpath -tags sim -o "$FAKE_BIN/" ./cmd/release-manifest ;;
"get github.com/bilbycast/edge-agent/cmd/edge-agent@"?*)
	cp "$FAKE_MODULE/go.sum" .
	"$FAKE_GO" mod edit -require=github.com/bilbycast/edge-agent@v0.0.0 -replace="github.com/bilbycast/edge-agent=$FAKE_MODULE"
	GOPROXY=off exec "$FAKE_GO" get github.com/bilbycast/edge-agent/cmd/edge-agent ;;
"build -trimpath -tags grpcnotrace,nethttpomithttp2 -gcflags="*)
	if [ "$GOARCH" != "$FAKE_ARCH" ]; then
		mkdir -p "$(dirname "${11}")"
		exec echo "a program for $GOARCH" >"${11}"
	fi
	shift 9
	exec "$FAKE_GO" build -trimpath -tags sim "$@" ;;
esac
exec "$FAKE_GO" "$@"
`,
}

// publisher is a repository and the runner of its workflow.
type publisher struct {
	t         *testing.T
	checkout  string
	env       []string
	envFile   string // GITHUB_ENV
	pathFile  string // GITHUB_PATH
	workspace string
}

// newPublisher returns a tagged repository that has only a copy of install.sh of this
// project, and a runner for r.
func newPublisher(t *testing.T, r *rig.Rig) *publisher {
	t.Helper()
	dir := t.TempDir()
	p := &publisher{t: t, workspace: filepath.Join(dir, "workspace"), envFile: filepath.Join(dir, "env"), pathFile: filepath.Join(dir, "path")}
	origin, bin, home := filepath.Join(dir, "github", repository), filepath.Join(dir, "bin"), filepath.Join(dir, "home")
	script, err := os.ReadFile("../install.sh")
	self, err2 := os.Executable()
	module, err3 := filepath.Abs("../..")
	goTool, err4 := exec.LookPath("go")
	arch, err5 := exec.Command("go", "env", "GOARCH").Output()
	cache, err6 := exec.Command("go", "env", "GOCACHE").Output()
	mod, err7 := exec.Command("go", "env", "GOMODCACHE").Output()
	if err := errors.Join(err, err2, err3, err4, err5, err6, err7); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		filepath.Join(origin, "packaging/install.sh"): string(script), filepath.Join(origin, "player.py"): "print('plays')\n",
		filepath.Join(home, ".gitconfig"): fmt.Sprintf("[url \"file://%s/\"]\n\tinsteadOf = https://x-access-token:the-token@github.com/\n[user]\n\tname = p\n\temail = p@example.com\n", filepath.Join(dir, "github")),
		p.envFile:                         "", p.pathFile: "", filepath.Join(p.workspace, "x"): "",
	}
	for name, text := range fakes {
		files[filepath.Join(bin, name)] = text
	}
	for name, text := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(filepath.Join(p.workspace, "x"))
	p.env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + home, "GOCACHE=" + strings.TrimSpace(string(cache)), "GOMODCACHE=" + strings.TrimSpace(string(mod)), "GOFLAGS=-buildvcs=false",
		"GOPATH=" + filepath.Join(dir, "go"), "EDGE_AGENT_SIM_TRUST=" + r.TrustDir(), "RUNNER_TEMP=" + dir,
		"FAKE_SELF=" + self, "FAKE_SIGSTORE=" + filepath.Join(r.Releases, "sigstore"), "FAKE_WWW=" + filepath.Join(r.Releases, "www"),
		"FAKE_MODULE=" + module, "FAKE_GO=" + goTool, "FAKE_BIN=" + bin, "FAKE_ARCH=" + strings.TrimSpace(string(arch)),
		"GITHUB_REPOSITORY=" + repository, "GITHUB_REPOSITORY_ID=123456789", "GITHUB_REPOSITORY_OWNER_ID=987654", "GITHUB_RUN_NUMBER=7",
		"GITHUB_WORKFLOW_REF=" + repository + "/" + workflow + "@refs/tags/" + tag, "GITHUB_ENV=" + p.envFile, "GITHUB_PATH=" + p.pathFile,
	}
	p.checkout = origin
	sha := p.sh("cd " + origin + " && git init -q && git add . && git commit -qm first && git tag " + tag + " && git rev-parse HEAD")
	p.env = append(p.env, "GITHUB_SHA="+strings.TrimSpace(sha))
	p.checkout = p.workspace
	return p
}

// sh runs a script as the runner does.
func (p *publisher) sh(script string) string {
	p.t.Helper()
	out, err := p.try(script)
	if err != nil {
		p.t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return out
}

func (p *publisher) try(script string) (string, error) {
	cmd := exec.CommandContext(p.t.Context(), "bash", "-e", "-c", script)
	cmd.Dir, cmd.Env = p.checkout, p.env
	if more, err := os.ReadFile(p.envFile); err == nil {
		cmd.Env = append(cmd.Env, strings.Fields(string(more))...)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The steps of release.yml publish a release of another repository, signed by its own
// workflow. The install.sh of that release installs it on a bare device, with an edge-
// agent that trusts only that workflow.
func TestAnotherPublisher(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds programs, and boots a machine")
	}
	r, err := rig.New(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// A release of acme/edge, so that the simulation's keys and a row that is not
	// the publisher's are there.
	if _, err := r.Publish(fakerelease.Options{Version: "1.0.0", Binary: "/bin/true"}); err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t, r)
	steps, env := parseWorkflow(t)
	for k, v := range env {
		switch k {
		case "DEVICE_TYPE":
			v = "player"
		case "GH_TOKEN":
			v = "the-token"
		case "TAG":
			v = tag
		}
		p.env = append(p.env, k+"="+v)
	}
	for _, s := range steps {
		began := time.Now()
		out := p.sh(s.script)
		t.Logf("%s (%.1f s)\n%s", s.name, time.Since(began).Seconds(), out)
		if strings.HasPrefix(s.name, "check") && strings.Contains(s.script, "release-manifest check") && !strings.Contains(out, "it declares the commands: probe, config check\n") {
			t.Errorf("the release declares no commands: %s", out)
		}
	}
	published := filepath.Join(r.Releases, "www", repository, "releases/download", tag)
	files, err := os.ReadDir(published)
	if err != nil || len(files) != 7 {
		t.Fatalf("published: %v %v", files, err)
	}
	agent := filepath.Join(p.workspace, "dist", release(t), "edge-agent")
	show, err := p.try(agent + " trust show")
	if !strings.Contains(show, ", repository id 123456789, owner id 987654\n") {
		t.Errorf("trust show prints no ids: %s", show)
	}
	if err != nil || !strings.Contains(show, "https://github.com/"+repository+"/"+workflow+"@refs/tags/v*") || strings.Count(show, "signer ") != 1 {
		t.Errorf("the agent trusts %s (%v)", show, err)
	}
	if out, err := p.try(agent + " verify " + filepath.Join(r.Releases, "www/acme/edge/releases/download/v1.0.0")); err == nil || !strings.Contains(out, "signer not allowed") {
		t.Errorf("the release of another publisher: %v %s", err, out)
	}
	out := p.sh("mkdir ../empty && cd ../empty && export GOARCH=$FAKE_ARCH\n" + firstCommands(t))
	if !strings.Contains(out, "https://github.com/acme/player/.github/workflows/release.yml@refs/tags/v*, of ") || !strings.Contains(out, ", repository id 123456789, owner id 987654\n") {
		t.Errorf("the first commands of docs/publish.md print %s", out)
	}
	t.Run("install", func(t *testing.T) { installPublished(t, r, published) })
}

// firstCommands returns the first block of commands in docs/publish.md.
func firstCommands(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/publish.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\n\n    ")
	text, _, ok := strings.Cut(text, "\n\n")
	if !ok {
		t.Fatal("docs/publish.md has no block of commands")
	}
	return text
}

// release returns the name of this machine in a release.
func release(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("uname", "-m").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)) + "-linux"
}

// installPublished runs the published install.sh on a bare device, and waits until the
// node has registered.
func installPublished(t *testing.T, r *rig.Rig, published string) {
	box.Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b := box.ForTest(ctx, t, box.Options{HostNetwork: true})
	url, token, fingerprint := r.Registration()
	root, err1 := b.Path(ctx, "/root")
	trust, err2 := b.Path(ctx, "/opt/trust")
	script, err3 := os.ReadFile(filepath.Join(published, "install.sh"))
	ca, err4 := os.ReadFile(filepath.Join(r.TrustDir(), "release_ca.pem"))
	if err := errors.Join(err1, err2, err3, err4, os.CopyFS(trust, os.DirFS(r.TrustDir())), os.WriteFile(filepath.Join(root, "install.sh"), script, 0o755),
		os.WriteFile(filepath.Join(root, "token"), []byte(token+"\n"), 0o600), os.WriteFile(filepath.Join(root, "ca.pem"), ca, 0o644)); err != nil {
		t.Fatal(err)
	}
	out, err := b.Exec(ctx, "env", "EDGE_AGENT_SIM_TRUST=/opt/trust", "CURL_CA_BUNDLE=/root/ca.pem", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"EDGE_AGENT_BASE="+r.Host+"/"+repository+"/releases/download/"+tag,
		"sh", "/root/install.sh", "--device-type", "player", "--manager", url, "--token-file", "/root/token", "--cert-fingerprint", fingerprint,
		"--environment", "EDGE_AGENT_SIM_TRUST=/opt/trust", "--restart-secs", "0.1")
	if err != nil {
		journal, _ := b.Journal(ctx, "player.service")
		t.Fatalf("install.sh: %v\n%s\n%s", err, out, journal)
	}
	for _, want := range []string{"2.0.0 is genuine: signed by https://github.com/" + repository + "/" + workflow + "@refs/tags/" + tag, "registered with the manager"} {
		if !strings.Contains(out, want) {
			t.Errorf("install.sh does not print %q:\n%s", want, out)
		}
	}
	if _, err := r.Timeline.Wait(ctx, 0, func(e rig.Entry) bool { return e.Type == "capabilities" && e.Version == "2.0.0" }); err != nil {
		t.Error(err)
	}
}

// The unfilled template refuses to run.
func TestInstallScriptIsATemplate(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "sh", "../install.sh").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "this is a template") {
		t.Errorf("%v %s", err, out)
	}
}
