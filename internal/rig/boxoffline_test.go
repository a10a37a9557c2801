package rig_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// Root upgrades a node without a release host from a stick, with the same checks and
// without any request. A refused release leaves no files.
func TestUnderSystemdFromAStick(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	var requests atomic.Int32
	refuse := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			w.WriteHeader(http.StatusTeapot)
		})
	}
	b.WrapHost.Store(&refuse)
	stick, err := b.node.Path(b.ctx, "/opt/stick")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(stick, 0o755); err != nil {
		t.Fatal(err)
	}
	stage := func(args string) (string, error) {
		return b.node.Exec(b.ctx, "sh", "-c", fmt.Sprintf("EDGE_AGENT_SIM_TRUST=/opt/trust %s/current/edge-agent stage --config %[1]s/config.toml --from %s 2>&1", rig.BoxRoot, args))
	}
	tree := func() string {
		return b.sh("cd " + rig.BoxRoot + " && find . -path ./outbox -prune -o -print | sort && cat state.json")
	}
	bundle := func(version string) {
		t.Helper()
		if err := fakerelease.Bundle(b.Releases, fakerelease.DefaultRepository, version, filepath.Join(stick, version+".tar")); err != nil {
			t.Fatal(err)
		}
	}

	for version, tt := range map[string]struct {
		fault fakerelease.Fault
		says  string
	}{
		"1.3.0": {fakerelease.BadSignature, "signature"},
		"1.3.1": {fakerelease.WrongIdentity, "signer not allowed"},
		"1.3.2": {fakerelease.NoLogEntry, "transparency log"},
		"1.3.3": {fakerelease.BadChecksum, "the signed manifest says"},
		"1.3.4": {fakerelease.WrongArch, "cannot run on this machine"},
	} {
		b.publish(version, tt.fault)
		bundle(version)
		before := tree()
		if out, err := stage("/opt/stick/" + version + ".tar"); err == nil || !strings.Contains(out, tt.says) {
			t.Errorf("%s: %v, %s", tt.fault, err, out)
		}
		empty := strings.NewReplacer("./downloads\n", "", "./downloads/.lock\n", "")
		if after := tree(); empty.Replace(after) != empty.Replace(before) {
			t.Errorf("%s leaves something:\n%s\nbefore:\n%s", tt.fault, after, before)
		}
	}
	for path, want := range map[string]string{"/opt/stick": "manifest.json", "/opt/none.tar": "no such file", "/dev/null": "neither a directory nor a tar file", "/etc/passwd": "not a tar file"} {
		if out, err := stage(path); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, %s", path, err, out)
		}
	}

	// From a file, and the swap later; then from a directory, at once.
	b.declares()
	b.publish("1.1.0", "")
	bundle("1.1.0")
	mark := b.Timeline.Mark()
	if out, err := stage("/opt/stick/1.1.0.tar"); err != nil || !strings.Contains(out, "1.1.0 is staged: signed by https://github.com/acme/edge/.github/workflows/release.yml@refs/tags/v1.1.0") {
		t.Fatalf("%v, %s", err, out)
	}
	if got := b.current(); got != "1.0.0" {
		t.Errorf("current is %s before apply", got)
	}
	const config = rig.BoxRoot + "/config.toml"
	b.sh("cp -p " + config + " /root/config && printf '[upgrade.windows]\nmon = 1\n' >>" + config)
	if out, err := b.node.Exec(b.ctx, "sh", "-c", rig.BoxRoot+"/current/edge-agent apply --root "+rig.BoxRoot+" 2>&1"); err == nil || !strings.Contains(out, `1.1.0 would not run with config.toml`) || b.current() != "1.0.0" {
		t.Errorf("apply with a key that 1.1.0 does not know: %v, %s", err, out)
	}
	b.sh("cp -p /root/config " + config)
	b.sh(rig.BoxRoot + "/current/edge-agent apply --root " + rig.BoxRoot + " && systemctl restart edge.service")
	b.event(mark, "upgrade_completed")
	b.ends("1.1.0", "stable", "upgrade completed")

	b.publish("1.2.0", fakerelease.ExitsAtOnce)
	if err := os.CopyFS(filepath.Join(stick, "dir"), os.DirFS(filepath.Join(b.Releases, "www/acme/edge/releases/download/v1.2.0"))); err != nil {
		t.Fatal(err)
	}
	mark = b.Timeline.Mark()
	if out, err := stage("/opt/stick/dir --apply"); err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	b.sh("systemctl restart edge.service || true")
	b.event(mark, "upgrade_rolled_back")
	b.wait(mark, "the old version", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.1.0" })
	b.ends("1.1.0", "rolled_back", "rolled back: 1.2.0")
	if got := b.sh("find " + rig.BoxRoot + " -ignore_readdir_race ! -user edge"); got != "" {
		t.Errorf("not the service's: %s", got)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests to the release host", n)
	}
}
