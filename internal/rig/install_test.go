package rig_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// All commands of docs/install.md, in their order.
func TestInstallByHand(t *testing.T) {
	needBox(t)
	doc, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(blocks) != 6 || !strings.HasPrefix(blocks[0][1], "URL=") {
		t.Fatalf("docs/install.md has %d blocks of commands", len(blocks))
	}
	bin := builds(t)
	ctx := patience(t)
	r := newRig(t)
	for _, v := range []string{"1.0.0", "1.1.0"} {
		if _, err := r.Publish(fakerelease.Options{Version: v, Binary: bin[v]}); err != nil {
			t.Fatal(err)
		}
	}
	b := box.ForTest(ctx, t, box.Options{HostNetwork: true})
	path := func(inside string) string { return b.MustPath(ctx, t, inside) }
	// It is a simulation build: this is the trust that it uses.
	text, err := os.ReadFile(bin["1.0.0"])
	dropIn := path("/etc/systemd/system/edge.service.d")
	if err := errors.Join(err, os.WriteFile(path("/root/edge-agent"), text, 0o755), os.CopyFS(path("/opt/trust"), os.DirFS(r.TrustDir())),
		os.MkdirAll(dropIn, 0o755), os.WriteFile(filepath.Join(dropIn, "sim.conf"), []byte("[Service]\nEnvironment=EDGE_AGENT_SIM_TRUST=/opt/trust\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	url, token, fingerprint := r.Registration()
	script := fmt.Sprintf("set -eu\ncd /root\nURL=%s\nTOKEN=%s\nFINGERPRINT=%s\nVERSION=1.0.0\n", url, token, fingerprint)
	for _, block := range blocks[1:] {
		script += block[1]
	}
	out, err := b.Exec(ctx, "sh", "-c", script)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, `Status: "1.0.0 runs`) || !strings.Contains(out, "1.0.0 runs and has proved healthy.") {
		t.Errorf("the commands say\n%s", out)
	}
	e, err := r.Timeline.Wait(ctx, 0, func(e rig.Entry) bool { return e.Type == "capabilities" })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Upgrade(ctx, e.NodeID, "1.1.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Timeline.Wait(ctx, 0, func(e rig.Entry) bool { return e.ErrorCode == "upgrade_completed" }); err != nil {
		journal, _ := b.Journal(ctx, "edge.service")
		t.Errorf("%v\n%s", err, journal)
	}
}
