package rig_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// The first install on a bare machine: a refused release leaves no files; a genuine one
// runs, registers and is upgraded; a second install changes nothing; uninstall removes it.
func TestUnderSystemdInstall(t *testing.T) {
	needBox(t)
	bin := builds(t)
	ctx := patience(t)
	r := newRig(t)
	var first fakerelease.Published
	for v, fault := range map[string]fakerelease.Fault{"1.0.0": "", "1.1.0": "", "1.3.0": fakerelease.WrongIdentity, "1.4.0": fakerelease.BadChecksum} {
		program := bin[v]
		if program == "" {
			program = bin["1.2.0"]
		}
		p, err := r.Publish(fakerelease.Options{Version: v, Binary: program, Fault: fault})
		if err != nil {
			t.Fatal(err)
		}
		if v == "1.0.0" {
			first = p
		}
	}
	b := box.ForTest(ctx, t, box.Options{HostNetwork: true})
	path := func(inside string) string { return b.MustPath(ctx, t, inside) }
	there := func(inside string) bool {
		_, err := os.Lstat(path(inside))
		return err == nil
	}
	url, token, fingerprint := r.Registration()
	text, err := os.ReadFile(bin["1.0.0"])
	script, err2 := os.ReadFile("../../packaging/install.sh")
	ca, err3 := os.ReadFile(filepath.Join(r.TrustDir(), "release_ca.pem"))
	if err := errors.Join(err, err2, err3, os.WriteFile(path("/root/edge-agent"), text, 0o755), os.WriteFile(path("/root/token"), []byte(token+"\n"), 0o600),
		os.WriteFile(path("/root/install.sh"), script, 0o644), os.WriteFile(path("/root/ca.pem"), ca, 0o644),
		os.CopyFS(path("/opt/trust"), os.DirFS(r.TrustDir()))); err != nil {
		t.Fatal(err)
	}
	run := func(env string, args ...string) (string, error) {
		return b.Exec(ctx, append([]string{"env", "EDGE_AGENT_SIM_TRUST=/opt/trust", env}, args...)...)
	}
	to := []string{"--device-type", "edge", "--manager", url, "--cert-fingerprint", fingerprint, "--environment", "EDGE_AGENT_SIM_TRUST=/opt/trust", "--restart-secs", "0.1"}
	install := func(what string, more ...string) (string, error) {
		return run("A=b", append(append([]string{"/root/edge-agent", "install", what}, to...), more...)...)
	}
	for _, tt := range []struct {
		what string
		more []string
		want string
	}{
		{"1.3.0", []string{"--token-file", "/root/token"}, "signer not allowed"},
		{"1.4.0", []string{"--token-file", "/root/token"}, "SHA-256"},
		{"1.0.0", nil, "--token-file are required"},
		{"1.0.0", []string{"--token-file", "/dev/null"}, "holds no token"},
		{"1.0.0", []string{"--token-file", "/root/token", "--manager", "http://x"}, "http://x"},
		{"9.9.9", []string{"--token-file", "/root/token"}, "is not there (404)"},
		{"1.0.0", []string{"--token-file", "/root/token", "--device-type", "other"}, `is for the device type "edge"`},
		{"1.0.0", []string{"--token-file", "/root/token", "--user", "root"}, "without root"},
		{"1.0.0", []string{"--token-file", "/root/token", "--name", "a b"}, "is not made of letters"},
	} {
		out, err := install(tt.what, tt.more...)
		if err == nil || !strings.Contains(out+err.Error(), tt.want) {
			t.Errorf("install %s %q: %v %s, want %q", tt.what, tt.more, err, out, tt.want)
		}
		if there("/opt/bilbycast/edge") || there("/etc/systemd/system/edge.service") {
			t.Errorf("install %s %q leaves something", tt.what, tt.more)
		}
	}
	// A unit that edge-agent did not write is kept.
	foreign := path("/etc/systemd/system/edge.service")
	if err := os.WriteFile(foreign, []byte("[Service]\nExecStart=/bin/true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{append([]string{"install", "1.0.0", "--token-file", "/root/token"}, to...), {"uninstall", "--device-type", "edge", "--purge"}} {
		out, err := run("A=b", append([]string{"/root/edge-agent"}, args...)...)
		if text, e := os.ReadFile(foreign); err == nil || !strings.Contains(out+err.Error(), "was not written by edge-agent") || !strings.Contains(string(text), "/bin/true") {
			t.Errorf("%s over another's unit: %v %v %s", args[0], err, e, out)
		}
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	// By install.sh: without cosign, by the pinned digest.
	env := []string{"EDGE_AGENT_REPOSITORY=acme/edge", "EDGE_AGENT_VERSION=1.0.0", "EDGE_AGENT_BASE=" + r.Host + "/acme/edge/releases/download/v1.0.0", "CURL_CA_BUNDLE=/root/ca.pem"}
	byScript := func(sum string) (string, error) {
		args := append([]string{"env"}, append(env, "EDGE_AGENT_SHA256="+sum, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "/root/install.sh")...)
		return run("A=b", append(append(args, to...), "--token-file", "/root/token")...)
	}
	if out, err := byScript(strings.Repeat("0", 64)); err == nil || !strings.Contains(out+err.Error(), "has the SHA-256") {
		t.Errorf("a wrong digest: %v %s", err, out)
	}
	out, err := byScript(first.SHA256)
	if err != nil {
		journal, _ := b.Journal(ctx, "edge.service")
		t.Fatalf("install.sh: %v\n%s\n%s", err, out, journal)
	}
	for _, want := range []string{"1.0.0 is genuine: signed by https://github.com/acme/edge/", "1.0.0 is in /opt/bilbycast/edge", "wrote /etc/systemd/system/edge.service", "registered with the manager"} {
		if !strings.Contains(out, want) {
			t.Errorf("install does not say %q:\n%s", want, out)
		}
	}
	t.Log(out)
	e, err := r.Timeline.Wait(ctx, 0, func(e rig.Entry) bool { return e.Type == "capabilities" })
	if err != nil {
		t.Fatal(err)
	}
	for file, mode := range map[string]os.FileMode{"config.toml": 0o600, "credentials.json": 0o600, "versions/1.0.0/edge-agent": 0o755} {
		if st, err := os.Stat(path("/opt/bilbycast/edge/" + file)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", file, st, err)
		}
	}
	if out, err := b.Exec(ctx, "sh", "-c", "find /opt/bilbycast/edge -ignore_readdir_race ! -user edge"); err != nil || out != "" {
		t.Errorf("not the user's: %v %s", err, out)
	}
	if out, err := b.Exec(ctx, "grep", "-r", token, "/etc/systemd/system"); err == nil {
		t.Errorf("the token is in a unit: %s", out)
	}
	if _, err := r.Upgrade(ctx, e.NodeID, "1.1.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Timeline.Wait(ctx, 0, func(e rig.Entry) bool { return e.ErrorCode == "upgrade_completed" }); err != nil {
		t.Fatal(err)
	}
	// Again: nothing is harmed.
	if err := os.Remove(path("/etc/systemd/system/edge.service")); err != nil {
		t.Fatal(err)
	}
	out, err = install("1.0.0")
	if err != nil || !strings.Contains(out, "has a version, which stays") || !strings.Contains(out, "the node is registered") || !there("/etc/systemd/system/edge.service") {
		t.Errorf("again: %v %s", err, out)
	}
	if to, err := os.Readlink(path("/opt/bilbycast/edge/current")); err != nil || to != "versions/1.1.0" {
		t.Errorf("again: current points to %s, %v", to, err)
	}
	if out, err := b.Exec(ctx, "systemctl", "is-active", "edge.service"); err != nil {
		t.Errorf("again: %v %s", err, out)
	}
	// With cosign, where the host has it, install.sh does not look at the pinned digest.
	if cosign, err := exec.LookPath("cosign"); err == nil {
		text, err := os.ReadFile(cosign)
		if err := errors.Join(err, os.MkdirAll(path("/root/bin"), 0o755), os.WriteFile(path("/root/bin/cosign"), text, 0o755)); err != nil {
			t.Fatal(err)
		}
		with := func(workflow string) (string, error) {
			args := append([]string{"env"}, append(env, "EDGE_AGENT_WORKFLOW="+workflow, "EDGE_AGENT_TRUSTED_ROOT=/opt/trust/trusted_root.json", "HOME=/root", "PATH=/root/bin:/usr/sbin:/usr/bin:/sbin:/bin", "sh", "/root/install.sh")...)
			return run("A=b", append(args, to...)...)
		}
		if out, err := with(fakerelease.Workflow); err != nil || !strings.Contains(out, "has a version, which stays") {
			t.Errorf("with cosign: %v %s", err, out)
		}
		if out, err := with(".github/workflows/other.yml"); err == nil || !strings.Contains(out+err.Error(), "was not signed by the release workflow") {
			t.Errorf("with cosign, another workflow: %v %s", err, out)
		}
	}
	// And away.
	uninstall := func(more ...string) string {
		t.Helper()
		out, err := b.Exec(ctx, append([]string{"/root/edge-agent", "uninstall", "--device-type", "edge"}, more...)...)
		if err != nil {
			t.Errorf("uninstall %q: %v %s", more, err, out)
		}
		return out
	}
	uninstall()
	if there("/etc/systemd/system/edge.service") || !there("/opt/bilbycast/edge/config.toml") {
		t.Error("uninstall removes too little, or too much")
	}
	if out, err := b.Exec(ctx, "systemctl", "is-active", "edge.service"); err == nil {
		t.Errorf("it still runs: %s", out)
	}
	uninstall("--purge")
	if there("/opt/bilbycast/edge") {
		t.Error("purge leaves the root")
	}
	if out := uninstall("--purge"); !strings.Contains(out, "/opt/bilbycast/edge does not exist") {
		t.Errorf("twice: %s", out)
	}
}
