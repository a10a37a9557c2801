package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	packed "github.com/bilbycast/edge-agent/internal/pack"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/release"
)

// product writes a tree of files to pack, in any order and at any time.
func product(t *testing.T, backwards bool, at time.Time) string {
	t.Helper()
	dir := t.TempDir()
	files := []struct {
		name, text string
		mode       os.FileMode
	}{{"edge-agent", "#!/bin/sh\n", 0o755}, {"lib/a.txt", "a", 0o600}, {"lib/b.txt", strings.Repeat("b", 100_000), 0o644}, {"README", "x", 0o664}}
	if backwards {
		for i, j := 0, len(files)-1; i < j; i, j = i+1, j-1 {
			files[i], files[j] = files[j], files[i]
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(f.text), f.mode), os.Chmod(path, f.mode), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.txt", filepath.Join(dir, "lib", "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func call(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	code := cli.Run(context.Background(), newRootCmd(), args, &out, &out)
	return out.String(), code
}

// The same files give the same bytes, independent of the time and order of their
// creation.
func TestBuildIsReproducible(t *testing.T) {
	t.Parallel()
	read := func(dir string) map[string]string {
		got := map[string]string{}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			got[e.Name()] = string(b)
		}
		return got
	}
	var first map[string]string
	for i, at := range []time.Time{time.Unix(1, 0), time.Now()} {
		out := filepath.Join(t.TempDir(), "release")
		text, code := call(t, "build", "--repository", "acme/edge", "--version", "1.5.0", "--device-type", "edge", "--sequence", "42", "--rollback-floor", "1.4.0", "--commands", "probe", "--commands", "config check", "--first-start-secs", "600",
			"--epoch", "1700000000", "--out", out, "x86_64-linux="+product(t, i == 1, at), "aarch64-linux:full="+product(t, i == 0, at))
		if code != 0 {
			t.Fatal(text)
		}
		got := read(out)
		if first == nil {
			first = got
			m, err := release.Parse([]byte(got[release.ManifestName]))
			if err != nil || len(got) != 5 || m.Sequence != 42 || m.RollbackFloor.String() != "1.4.0" || !slices.Equal(m.Commands, []string{"probe", "config check"}) || m.FirstStartSecs != 600 || m.Artefacts[0].UnpackedSize != 100_012 || m.ReleasedAt.Unix() != 1700000000 {
				t.Errorf("%v %+v", err, m)
			}
			continue
		}
		for name := range first {
			if first[name] != got[name] {
				t.Errorf("%s differs", name)
			}
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	good := product(t, false, time.Now())
	escapes, setid, empty := product(t, false, time.Now()), product(t, false, time.Now()), t.TempDir()
	if err := errors.Join(os.Symlink("../../etc/passwd", filepath.Join(escapes, "lib", "out")), os.Chmod(filepath.Join(setid, "edge-agent"), 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	refused := func(make func(dir string) error) string {
		t.Helper()
		dir := product(t, false, time.Now())
		if err := make(filepath.Join(dir, "lib")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	reserved := refused(func(lib string) error { return os.WriteFile(filepath.Join(lib, "..", ".release.json"), nil, 0o644) })
	control := refused(func(lib string) error { return os.WriteFile(filepath.Join(lib, "a\x01"), nil, 0o644) })
	bytes := refused(func(lib string) error { return os.WriteFile(filepath.Join(lib, "a\xff"), nil, 0o644) })
	zigzag := refused(func(lib string) error { return os.Symlink("sub/../a", filepath.Join(lib, "zigzag")) })
	for _, tt := range []struct {
		change []string // flags in place of the good ones
		spec   string
		code   int
		want   string
	}{
		{nil, "", 2, "no ARCH=DIR given"},
		{nil, "x86_64-linux", 2, "is not ARCH[:VARIANT]=DIR"},
		{nil, "../x=" + good, 1, "arch"},
		{nil, "amd64=" + good, 2, "write x86_64-linux"},
		{nil, "x86_64-linux=/nowhere", 1, "no such file"},
		{nil, "x86_64-linux=" + escapes, 1, `every node would refuse "lib/out": link to "../../etc/passwd", which leaves the archive`},
		{nil, "x86_64-linux=" + reserved, 1, "the name is reserved"},
		{nil, "x86_64-linux=" + control, 1, "contains a control character"},
		{nil, "x86_64-linux=" + bytes, 1, "is not UTF-8"},
		{nil, "x86_64-linux=" + zigzag, 1, `".." after another element`},
		{[]string{"--formats", "tar.zst,tar.zst"}, "x86_64-linux=" + good, 2, "--formats has tar.zst twice"},
		{nil, "x86_64-linux=" + setid, 1, "edge-agent has a set-id"},
		{nil, "x86_64-linux=" + empty, 1, "contains no file"},
		{[]string{"--version", "latest"}, "x86_64-linux=" + good, 2, "latest"},
		{[]string{"--sequence", "0"}, "x86_64-linux=" + good, 2, "--sequence"},
		{[]string{"--commands", "config-check"}, "x86_64-linux=" + good, 2, `--commands "config-check": nodes know "probe" and "config check"`},
		{[]string{"--first-start-secs", "0"}, "x86_64-linux=" + good, 2, "outside 1 to 3600"},
		{[]string{"--first-start-secs", "3601"}, "x86_64-linux=" + good, 2, "outside 1 to 3600"},
		{[]string{"--rollback-floor", "9.0.0"}, "x86_64-linux=" + good, 1, "rollback_floor"},
		{[]string{"--device-type", "a b"}, "x86_64-linux=" + good, 2, "--device-type"},
	} {
		out := filepath.Join(t.TempDir(), "release")
		args := append([]string{"build", "--repository", "acme/edge", "--version", "1.5.0", "--device-type", "edge", "--sequence", "1", "--out", out}, tt.change...)
		if tt.spec != "" {
			args = append(args, tt.spec)
		}
		text, code := call(t, args...)
		if code != tt.code || !strings.Contains(text, tt.want) {
			t.Errorf("%q %s: %d %s, want %q", tt.change, tt.spec, code, text, tt.want)
		}
		left, _ := filepath.Glob(out + "*")
		if len(left) > 0 {
			t.Errorf("%q %s leaves %v", tt.change, tt.spec, left)
		}
	}
	dir := t.TempDir()
	if text, code := call(t, "build", "--repository", "acme/edge", "--version", "1.5.0", "--device-type", "edge", "--sequence", "1", "--out", dir, "x86_64-linux="+good); code != 1 ||
		!strings.Contains(text, dir+" exists already, and is kept: remove it, or write 1.5.0 to another directory with --out") {
		t.Errorf("a directory that is there: %d %s", code, text)
	}
	if text, code := call(t, "build", "--version", "1.5.0", "x86_64-linux="+good); code != 2 || !strings.Contains(text, "--repository is missing") {
		t.Errorf("without flags: %d %s", code, text)
	}
}

// A release is built, signed with a fake Sigstore, and checked. The check finds later
// changes.
func TestPublisherEndToEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "release-manifest")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "sim", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tree := product(t, false, time.Now())
	if _, err := fakerelease.Publish(dir, fakerelease.Options{Version: "1.0.0", Binary: filepath.Join(tree, "edge-agent")}); err != nil { // makes the trust directory
		t.Fatal(err)
	}
	cert, err := selfsign.Ensure(filepath.Join(dir, "tls"))
	if err != nil {
		t.Fatal(err)
	}
	if err := fakerelease.SetHost(dir, "https://127.0.0.1:1", cert.PEM); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "EDGE_AGENT_SIM_TRUST="+filepath.Join(dir, "trust"), epochEnv+"=1700000000")
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != want {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run(0, "build", "--repository", "acme/edge", "--version", "1.5.0", "--device-type", "edge", "--sequence", "42", "--commands", "probe,config check", "--first-start-secs", "90", release.HostArch()+"="+tree, "mips-linux="+tree)
	manifest, err := os.ReadFile(filepath.Join(dir, "release", release.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := fakesig.Ensure(filepath.Join(dir, "sigstore"))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(repo string) {
		t.Helper()
		bundle, err := sig.Sign(manifest, fakesig.GitHub(repo, fakerelease.Workflow, "refs/tags/v1.5.0", strings.Repeat("0", 40)), time.Now(), fakesig.Opt{RekorV2: true})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "release", release.BundleName), bundle, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	check := []string{"check", "--repository", "acme/edge", "--workflow", fakerelease.Workflow, "release"}
	if out := run(1, check...); !strings.Contains(out, "DO NOT PUBLISH") || !strings.Contains(out, release.BundleName) {
		t.Errorf("before it is signed: %s", out)
	}
	sign("mallory/edge")
	if out := run(1, check...); !strings.Contains(out, "signer not allowed") {
		t.Errorf("signed by a fork: %s", out)
	}
	sign("acme/edge")
	if out := run(0, check...); !strings.Contains(out, "1.5.0 is valid") || !strings.Contains(out, "; 4 files have the signed digests") ||
		!strings.Contains(out, "it declares the commands: probe, config check; a start may take 1m30s until") {
		t.Errorf("signed: %s", out)
	}
	// Two nodes would get different files.
	good := manifest
	zst := filepath.Join(dir, "release", "edge-1.5.0-mips-linux-default.tar.zst")
	kept, err := os.ReadFile(zst)
	if err != nil {
		t.Fatal(err)
	}
	m, err := release.Parse(manifest)
	if err == nil {
		manifest, err = remade(m, filepath.Join(dir, "release"), zst)
	}
	if err := errors.Join(err, os.WriteFile(filepath.Join(dir, "release", release.ManifestName), manifest, 0o644)); err != nil {
		t.Fatal(err)
	}
	sign("acme/edge")
	if out := run(1, check...); !strings.Contains(out, `edge-1.5.0-mips-linux-default.tar.zst: it lacks "README", which the tarball has`) {
		t.Errorf("a tar.zst of other files: %s", out)
	}
	manifest = good
	if err := errors.Join(os.WriteFile(zst, kept, 0o644), os.WriteFile(filepath.Join(dir, "release", release.ManifestName), manifest, 0o644)); err != nil {
		t.Fatal(err)
	}
	sign("acme/edge")
	run(0, check...)
	other := filepath.Join(dir, "release", "edge-1.5.0-mips-linux-default.tar.gz")
	f, err := os.OpenFile(other, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("x")
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if out := run(1, check...); !strings.Contains(out, "edge-1.5.0-mips-linux-default.tar.gz has") {
		t.Errorf("a tarball that was changed: %s", out)
	}
}

// remade writes a tar.zst with another file alone, and returns the manifest of m that fits it.
func remade(m release.Manifest, dir, zst string) ([]byte, error) {
	f, err := os.Create(zst)
	if err != nil {
		return nil, err
	}
	w, err := packed.Writer(release.FormatZstd, f, 1)
	if err != nil {
		return nil, err
	}
	t := tar.NewWriter(w)
	err = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "edge-agent", Mode: 0o755})
	if err := errors.Join(err, t.Close(), w.Close(), f.Close()); err != nil {
		return nil, err
	}
	b, _, err := packed.Complete(m, dir, []string{release.FormatZstd}, true)
	return b, err
}

// The check looks at the URLs of every artefact and format, and not only at those of this machine.
func TestCheckOfURLs(t *testing.T) {
	t.Parallel()
	const base = "https://github.com/acme/edge/releases/download/v1.5.0"
	for _, url := range []string{"https://github.com/acme/other/releases/download/v1.5.0/a.tar.gz", "http://example.com/a.tar.gz", base + "/x/a.tar.gz"} {
		m := release.Manifest{Artefacts: []release.Artefact{{Arch: "other-linux", URL: url, SHA256: strings.Repeat("0", 64), Size: 1}}}
		var coded *release.Error
		if _, err := files(t.TempDir(), base, m); !errors.As(err, &coded) || coded.Code != release.URLInvalid {
			t.Errorf("%s: %v", url, err)
		}
	}
}
