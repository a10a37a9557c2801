package rig_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

var notebooks = sync.OnceValues(func() (map[string]string, error) {
	if _, err := programs(); err != nil { // makes buildDir
		return nil, err
	}
	return rig.BuildCommand(context.Background(), "internal/rig/notebook", buildDir, "1.0.0", "1.1.0", "1.2.0")
})

// notebook is a node that runs version 1.0.0 of the service with data.
func notebook(t *testing.T, env ...string) *bench {
	t.Helper()
	t.Parallel()
	tools := builds(t)
	bin, err := notebooks()
	if err != nil {
		t.Fatal(err)
	}
	ctx := patience(t)
	b := &bench{Rig: newRig(t), t: t, ctx: ctx, bin: bin, releases: fakerelease.Options{Repository: "acme/notebook", BinaryName: "notebook"}}
	for _, v := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		b.publish(v, "")
	}
	b.node, err = b.Install(t.Context(), rig.NodeConfig{Version: "1.0.0", Binary: bin["1.0.0"], BinaryName: "notebook", Tool: tools["1.0.0"], MaxBootAttempts: 2, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.data(), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.node.Start()
	t.Cleanup(func() {
		b.node.Stop()
		if t.Failed() {
			journal, _ := os.ReadFile(b.node.Journal)
			t.Logf("the node's journal:\n%s", journal)
		}
	})
	b.id = b.wait(0, "the first health beat", func(e rig.Entry) bool { return e.Type == "capabilities" }).NodeID
	return b
}

// data is the path of the service's data.
func (b *bench) data() string { return filepath.Join(b.node.Root, "notebook") }

// becomes waits until the manager shows a version and a health, and the data have a schema.
func (b *bench) becomes(version, health, schema string) {
	b.t.Helper()
	for tick := time.Tick(100 * time.Millisecond); ; <-tick {
		n, err := b.Client.Node(b.ctx, b.id)
		text, _ := os.ReadFile(b.data())
		if err == nil && n.Online && n.Version == version && n.Health == health && strings.TrimSpace(string(text)) == schema {
			return
		}
		if b.ctx.Err() != nil {
			b.t.Fatalf("%+v, %v, schema %s: %v", n, err, text, context.Cause(b.ctx))
		}
	}
}

// A release that migrates its data before it is kept, and is rolled back, leaves a node that
// runs: with its data, if it saved them; and otherwise one that is online, says what it lacks,
// and is repaired by a release.
func TestDataMigratedBeforeTheRollback(t *testing.T) {
	t.Parallel()
	t.Run("saved", func(t *testing.T) {
		b := notebook(t, "NOTEBOOK=saves", "NOTEBOOK_1_1=early")
		mark, _ := b.upgrade("1.1.0")
		b.event(mark, "upgrade_rolled_back")
		b.becomes("1.0.0", "ok", "1")
		mark, _ = b.upgrade("1.2.0")
		b.event(mark, "upgrade_completed")
		b.becomes("1.2.0", "ok", "1")
	})
	t.Run("not saved", func(t *testing.T) {
		b := notebook(t, "NOTEBOOK_1_1=early")
		mark, _ := b.upgrade("1.1.0")
		b.event(mark, "upgrade_rolled_back")
		b.becomes("1.0.0", "degraded", "2")
		mark = b.Timeline.Mark()
		if _, err := b.Client.UpgradeNode(b.ctx, b.id, api.NodeUpgrade{Version: "1.2.0", Repair: true}); err != nil { // 1.0.0 is not healthy
			t.Fatal(err)
		}
		b.event(mark, "upgrade_completed")
		b.becomes("1.2.0", "ok", "2")
	})
}

// A release that migrates its data once it is kept, and to which an operator then prefers the
// old version, leaves a node that runs.
func TestDataMigratedAfterTheVersionWasKept(t *testing.T) {
	t.Parallel()
	back := func(b *bench) {
		mark, _ := b.upgrade("1.1.0")
		b.event(mark, "upgrade_completed")
		b.becomes("1.1.0", "ok", "2")
		if out, err := exec.CommandContext(b.ctx, builds(b.t)["1.0.0"], "rollback", "--root", b.node.Root).CombinedOutput(); err != nil {
			b.t.Fatalf("%v: %s", err, out)
		}
	}
	t.Run("saved", func(t *testing.T) {
		box.Slow(t)
		b := notebook(t, "NOTEBOOK=saves", "NOTEBOOK_1_1=kept")
		back(b)
		b.becomes("1.0.0", "ok", "1")
	})
	t.Run("not saved", func(t *testing.T) { // 1.0.0 fails its trial, and the node returns to 1.1.0
		b := notebook(t, "NOTEBOOK_1_1=kept")
		back(b)
		mark := b.Timeline.Mark()
		b.event(mark, "upgrade_rolled_back")
		b.becomes("1.1.0", "ok", "2")
	})
}

// A service that cannot save its data refuses the upgrade, and nothing is swapped.
func TestDataThatCannotBeSaved(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the versions of a service")
	}
	b := notebook(t, "NOTEBOOK=full")
	mark, id := b.upgrade("1.1.0")
	b.wait(mark, "the refusal", func(e rig.Entry) bool { return e.Type == "ack" && e.CommandID == id && !e.Success })
	list, err := b.Client.Commands(b.ctx, b.id, 1, "")
	if err != nil || len(list.Commands) != 1 || !strings.Contains(list.Commands[0].Error, "the disk for backups is full") {
		t.Errorf("%+v, %v", list, err)
	}
	b.becomes("1.0.0", "ok", "1")
	if tree, err := b.node.Tree(); err != nil || tree.Current.String() != "1.0.0" || tree.LastGood.String() != "1.0.0" {
		t.Errorf("%+v, %v", tree, err)
	}
}
