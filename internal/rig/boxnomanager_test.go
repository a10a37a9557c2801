package rig_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
)

// A node without a manager is installed without a token, and says that it
// has none. A release from a stick is kept if its own check holds, and rolled back
// if it does not: nothing else decides.
func TestUnderSystemdWithoutAManager(t *testing.T) {
	needBox(t)
	bin := builds(t)
	ctx := patience(t)
	r := newRig(t)
	well := filepath.Join(t.TempDir(), "well")
	if err := os.WriteFile(well, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for v, extra := range map[string]map[string]string{"1.0.0": {"well": well}, "1.1.0": {"well": well}, "1.2.0": nil} {
		o := fakerelease.Options{Version: v, Binary: bin[v], Extra: extra}
		if v == "1.1.0" { // as last-good it could probe a link, if there were one
			o.Commands = []string{release.CommandProbe, release.CommandConfigCheck}
		}
		if _, err := r.Publish(o); err != nil {
			t.Fatal(err)
		}
	}
	b := box.ForTest(ctx, t, box.Options{HostNetwork: true})
	path := func(inside string) string { return b.MustPath(ctx, t, inside) }
	program, err := os.ReadFile(bin["1.0.0"])
	if err := errors.Join(err, os.WriteFile(path("/root/edge-agent"), program, 0o755), os.CopyFS(path("/opt/trust"), os.DirFS(r.TrustDir())),
		os.CopyFS(path("/opt/stick"), os.DirFS(filepath.Join(r.Releases, "www/acme/edge/releases/download")))); err != nil {
		t.Fatal(err)
	}
	sh := func(command string) string {
		t.Helper()
		out, err := b.Exec(ctx, "sh", "-c", "export EDGE_AGENT_SIM_TRUST=/opt/trust; cd /opt/bilbycast/edge 2>/dev/null; "+command)
		if err != nil {
			journal, _ := b.Journal(ctx, "edge.service")
			t.Fatalf("%s: %v\n%s\n%s", command, err, out, journal)
		}
		return strings.TrimSpace(out)
	}
	out := sh("/root/edge-agent install /opt/stick/v1.0.0 --device-type edge --manager none --environment EDGE_AGENT_SIM_TRUST=/opt/trust --restart-secs 0.1 2>&1")
	if !strings.Contains(out, "no manager configured; edge.service is running") {
		t.Errorf("install says:\n%s", out)
	}
	sh("printf 'boot_health_window_secs = 10\\nhealth_hold_secs = 1\\nmax_boot_attempts = 1\\n[health]\\ncommand = [\"/usr/bin/test\", \"-e\", \"/opt/bilbycast/edge/current/well\"]\\n' >>config.toml && " +
		"systemctl restart edge")
	const tool = "/opt/bilbycast/edge/current/edge-agent "
	for command, want := range map[string]string{
		"status --root $PWD":                                              "connection   no manager configured",
		"doctor --config $PWD/config.toml || true":                        "ok    manager (no manager configured)",
		"probe --config $PWD/config.toml 2>&1; echo exit $?":              "there is nothing to probe",
		"probe --json --config $PWD/config.toml 2>/dev/null; echo \"$?\"": "4",
		"config check $PWD/config.toml":                                   "no manager configured (urls is empty)",
	} {
		if out := sh(tool + command); !strings.Contains(out, want) {
			t.Errorf("%s says:\n%s\nwant %q", command, out, want)
		}
	}
	ends := func(version, status string) string {
		sh("for i in $(seq 400); do systemctl is-active -q edge && " + tool + "status --root $PWD --json | grep -q '\"status\": \"" + status + "\"' && exit; sleep 0.1; done; exit 1")
		if got := sh("readlink current last-good"); got != "versions/"+version+"\nversions/"+version {
			t.Errorf("current and last-good point to %s, want %s", got, version)
		}
		return sh("cat outbox/*; journalctl -u edge -o cat --no-pager")
	}
	sh(tool + "stage --config $PWD/config.toml --from /opt/stick/v1.1.0 --apply && systemctl restart edge")
	if said := ends("1.1.0", "stable"); !strings.Contains(said, "the node has no manager, so its check alone decided") {
		t.Errorf("the event does not say why 1.1.0 was kept:\n%s", said)
	}
	sh(tool + "stage --config $PWD/config.toml --from /opt/stick/v1.2.0 --apply && systemctl --no-block restart edge")
	if said := ends("1.1.0", "rolled_back"); !strings.Contains(said, "its own check fails: health.command: exit status 1") {
		t.Errorf("the event does not say why 1.2.0 was rolled back:\n%s", said)
	}
}
