package rig_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/google/go-cmp/cmp"
)

// programs builds the simulation builds, by version, once for the package.
var programs = sync.OnceValues(func() (map[string]string, error) {
	dir, err := os.MkdirTemp("", "rig-programs")
	if err != nil {
		return nil, err
	}
	buildDir = dir
	return rig.Build(context.Background(), dir, "1.0.0", "1.1.0", "1.2.0")
})
var buildDir string

func TestMain(m *testing.M) {
	// A stager looks at every file of the CA store. The first one, with all authorities, is enough here.
	os.Setenv("SSL_CERT_DIR", os.DevNull)
	flag.Parse()
	more := runtime.GOMAXPROCS(0) / 2
	if testing.Short() { // without machines
		more *= 4
	}
	box.AtOnce(runtime.GOMAXPROCS(0) + more) // they mostly wait: for a machine that boots, or for a window that ends
	code := m.Run()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// patience returns a context for all that a test waits for. It ends so late that a slow
// machine, on which packages are tested beside each other, fails no test; and before go test
// ends the process, so that the failure has its log.
func patience(t *testing.T) context.Context { return patienceOf(t.Context(), t) }

func patienceOf(ctx context.Context, t *testing.T) context.Context {
	end := time.Now().Add(15 * time.Minute)
	if last, ok := t.Deadline(); ok && last.Add(-time.Minute).Before(end) {
		end = last.Add(-time.Minute)
	}
	ctx, cancel := context.WithDeadlineCause(ctx, end, errors.New("the test took too long"))
	t.Cleanup(cancel)
	return ctx
}

// bench is a rig with one registered node that runs 1.0.0.
type bench struct {
	*rig.Rig
	t    *testing.T
	ctx  context.Context
	node *rig.Node
	id   string
	bin  map[string]string
	// releases are the options that all its releases share.
	releases fakerelease.Options
}

func setup(t *testing.T, c rig.NodeConfig) *bench {
	t.Helper()
	t.Parallel()
	bin := builds(t)
	ctx := patience(t)
	r := newRig(t)
	b := &bench{Rig: r, t: t, ctx: ctx, bin: bin}
	b.publish("1.0.0", "")
	c.Version, c.Binary = "1.0.0", bin["1.0.0"]
	node, err := r.Install(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	b.node = node
	b.node.Start()
	t.Cleanup(func() {
		b.node.Stop()
		if t.Failed() {
			journal, _ := os.ReadFile(b.node.Journal)
			t.Logf("the node's journal:\n%s", journal)
			for _, e := range r.Timeline.Since(0) {
				t.Logf("%s %-8s %-14s start=%d %s %s %s", e.At.Format("05.000"), e.From, e.Type, e.Start, e.Version, e.ErrorCode, e.Message)
			}
		}
	})
	b.wait(0, "ready", func(e rig.Entry) bool { return e.Type == "ready" })
	e := b.wait(0, "the first health beat", func(e rig.Entry) bool { return e.Type == "capabilities" })
	if e.Version != "1.0.0" {
		t.Fatalf("the node reports version %s", e.Version)
	}
	b.id = e.NodeID
	copied(ctx, t, node.Root)
	return b
}

// copied waits for the agent's copy of its configuration, the last file that a stable
// version writes after its start.
func copied(ctx context.Context, t *testing.T, root string) {
	t.Helper()
	for tick := time.Tick(10 * time.Millisecond); ; <-tick {
		_, err := os.Stat(filepath.Join(root, "config.toml.accepted"))
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func (b *bench) publish(version string, fault fakerelease.Fault) {
	b.t.Helper()
	program := b.bin[version]
	if program == "" {
		program = b.bin["1.2.0"]
	}
	o := b.releases
	o.Version, o.Binary, o.Fault = version, program, fault
	if _, err := b.Publish(o); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) wait(mark int, what string, match func(rig.Entry) bool) rig.Entry {
	b.t.Helper()
	e, err := b.Timeline.Wait(b.ctx, mark, match)
	if err != nil {
		b.t.Fatalf("waiting for %s: %v", what, err)
	}
	return e
}

func (b *bench) event(mark int, code string) rig.Entry {
	b.t.Helper()
	return b.wait(mark, code, func(e rig.Entry) bool { return e.Type == "event" && e.ErrorCode == code })
}

func (b *bench) upgrade(version string) (mark int, commandID string) {
	b.t.Helper()
	mark = b.Timeline.Mark()
	id, err := b.Upgrade(b.ctx, b.id, version)
	if err != nil {
		b.t.Fatal(err)
	}
	return mark, id
}

// checkRuns checks which version runs: in the links, in state.json, and in the manager's
// record.
func (b *bench) checkRuns(version, status, upgradeState string) {
	b.t.Helper()
	if tree, err := b.node.Tree(); err != nil || tree.Current.String() != version || tree.LastGood.String() != version {
		b.t.Errorf("current points to %s and last-good to %s (%v), want %s", tree.Current, tree.LastGood, err, version)
	}
	st, err := b.node.Status(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	if string(st.Status) != status || st.Current != version {
		b.t.Errorf("status is %s at %s, want %s at %s", st.Status, st.Current, status, version)
	}
	n, err := b.Client.Node(b.ctx, b.id)
	if err != nil {
		b.t.Fatal(err)
	}
	if n.Version != version || string(n.UpgradeState) != upgradeState || !n.Online {
		b.t.Errorf("the manager has %+v, want %s, %s, online", n, version, upgradeState)
	}
}

// upgradeTo upgrades the node to a version that proves healthy.
func (b *bench) upgradeTo(version string) {
	b.t.Helper()
	mark, id := b.upgrade(version)
	done := b.event(mark, "upgrade_completed")
	if done.CommandID != id {
		b.t.Errorf("completed by command %s, want %s", done.CommandID, id)
	}
	b.checkRuns(version, "stable", "updated")

	var codes []string
	acks := 0
	for _, e := range b.Timeline.Since(mark) {
		if e.Type == "event" {
			codes = append(codes, e.ErrorCode)
		}
		if e.Type == "ack" && e.Success {
			acks++
		}
	}
	want := []string{"upgrade_started", "upgrade_downloaded", "upgrade_staged", "upgrade_completed"}
	if d := cmp.Diff(want, codes); d != "" {
		b.t.Errorf("events (-want +got):\n%s", d)
	}
	if acks != 1 {
		b.t.Errorf("%d acks, want 1", acks)
	}
}

// An upgrade, a downgrade to the old version, and another upgrade.
func TestUpgradeAndDowngrade(t *testing.T) {
	b := setup(t, rig.NodeConfig{})
	b.publish("1.1.0", "")
	b.upgradeTo("1.1.0")
	if tree, err := b.node.Tree(); err != nil || tree.Previous.String() != "1.0.0" {
		t.Errorf("previous points to %s (%v)", tree.Previous, err)
	}
	b.upgradeTo("1.0.0")
	b.upgradeTo("1.1.0")
}

// Releases that fail their trial are rolled back.
func TestRollback(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault   fakerelease.Fault
		starts  int
		timeout time.Duration
	}{
		{fakerelease.ExitsAtOnce, 3, 0},
		{fakerelease.Hangs, 2, time.Second},
		{fakerelease.NeverAuthenticates, 1, 30 * time.Second}, // the agent's own window ends it
		{fakerelease.NeverHealthy, 2, time.Second},
		{fakerelease.WrongVersion, 3, 0},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			if c.starts > 1 && c.timeout > 0 {
				box.Slow(t)
			}
			b := setup(t, rig.NodeConfig{MaxBootAttempts: c.starts, TimeoutStart: c.timeout})
			b.publish("1.2.0", c.fault)
			mark, id := b.upgrade("1.2.0")
			back := b.event(mark, "upgrade_rolled_back")
			if back.Severity != "critical" || back.CommandID != id {
				t.Errorf("event %+v", back)
			}
			b.wait(mark, "1.0.0 again", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.0.0" })
			b.checkRuns("1.0.0", "rolled_back", "rolled_back")

			// Starts of the bad version: all between the one that the swap ended and
			// the one that was rolled back.
			starts := 0
			for _, e := range b.Timeline.Since(mark) {
				if e.From == rig.FromNode && (e.Type == "started" || e.Type == "exec_failed") {
					starts++
				}
			}
			if starts-1 != c.starts {
				t.Errorf("the bad version was started %d times, want %d", starts-1, c.starts)
			}
			// Once only, and it stays that way: the same release can be tried again.
			mark, _ = b.upgrade("1.2.0")
			b.event(mark, "upgrade_rolled_back")
		})
	}
}

// (b), (d): releases that are refused before anything is swapped. The tree
// afterwards equals the tree before.
func TestRefused(t *testing.T) {
	t.Parallel()
	for fault, code := range map[fakerelease.Fault]string{
		fakerelease.WrongIdentity: "upgrade_identity_not_allowed",
		fakerelease.BadSignature:  "upgrade_signature_invalid",
		fakerelease.NoLogEntry:    "upgrade_rekor_invalid",
		fakerelease.BadChecksum:   "upgrade_checksum_mismatch",
		fakerelease.Truncated:     "upgrade_extract_failed",
		fakerelease.NotExecutable: "upgrade_extract_failed",
		fakerelease.WrongArch:     "upgrade_arch_mismatch",
	} {
		t.Run(string(fault), func(t *testing.T) {
			b := setup(t, rig.NodeConfig{})
			before := tree(t, b.node.Root)
			b.publish("1.2.0", fault)
			mark, id := b.upgrade("1.2.0")
			b.event(mark, code)
			ack := b.wait(mark, "the ack", func(e rig.Entry) bool { return e.Type == "ack" })
			if ack.Success || ack.ErrorCode != code || ack.CommandID != id {
				t.Errorf("ack %+v, want %s", ack, code)
			}
			b.checkRuns("1.0.0", "stable", "failed")
			if d := cmp.Diff(before, tree(t, b.node.Root)); d != "" {
				t.Errorf("the tree changed:\n%s", d)
			}
			for _, e := range b.Timeline.Since(mark) {
				if e.From == rig.FromNode && e.Type != "status" {
					t.Errorf("the service did not just go on running: %+v", e)
				}
			}
		})
	}
}

// tree lists the install root with the content of links and the size of files,
// but for what an upgrade's record is kept in.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if tries(rel) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case rel == "state.json", strings.HasPrefix(rel, "outbox"), rel == "downloads", rel == ".":
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %s", info.Mode(), rel)
		if info.Mode().IsRegular() {
			line += fmt.Sprintf(" %d", info.Size())
		}
		if target, err := os.Readlink(path); err == nil {
			line += " -> " + target
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// (e): a manager that is away does not keep a stable version from being ready.
func TestManagerAway(t *testing.T) {
	t.Parallel()
	bin := builds(t)
	r := newRig(t)
	if _, err := r.Publish(fakerelease.Options{Version: "1.0.0", Binary: bin["1.0.0"]}); err != nil {
		t.Fatal(err)
	}
	n, err := r.Install(t.Context(), rig.NodeConfig{Version: "1.0.0", Binary: bin["1.0.0"], ManagerURL: "wss://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	n.Start()
	defer n.Stop()
	ctx := patience(t)
	if _, err := r.Timeline.Wait(ctx, 0, func(e rig.Entry) bool { return e.Type == "ready" && e.Start == 1 }); err != nil {
		t.Fatal(err)
	}
}

// A node with upgrades disabled does not offer them, and the manager shows the reason.
func TestDisabled(t *testing.T) {
	t.Parallel()
	bin := builds(t)
	r := newRig(t)
	if _, err := r.Publish(fakerelease.Options{Version: "1.0.0", Binary: bin["1.0.0"]}); err != nil {
		t.Fatal(err)
	}
	n, err := r.Install(t.Context(), rig.NodeConfig{Version: "1.0.0", Binary: bin["1.0.0"], Disabled: true})
	if err != nil {
		t.Fatal(err)
	}
	n.Start()
	defer n.Stop()
	ctx := patience(t)
	e, err := r.Timeline.Wait(ctx, 0, func(e rig.Entry) bool { return e.Type == "authenticated" })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Upgrade(ctx, e.NodeID, "1.0.0"); !api.IsCode(err, api.CodeNoCapability) {
		t.Errorf("got %v", err)
	}
}

// The version of a simulation build ends in "+sim".
func TestSimulationBuildNamesItself(t *testing.T) {
	t.Parallel()
	bin := builds(t)
	out, err := exec.Command(bin["1.0.0"], "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "edge-agent 1.0.0+sim ") {
		t.Errorf("got %q, %v", out, err)
	}
}
