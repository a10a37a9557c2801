package rig_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/wire"
)

// inBox is a node under a real systemd, running 1.0.0 and registered.
type inBox struct {
	*bench
	node *rig.BoxNode
}

func setupBox(t *testing.T, c rig.NodeConfig, o box.Options) *inBox {
	t.Helper()
	bin := builds(t)
	b := setupBoxOf(t, c, o, bin, fakerelease.Options{})
	b.sh("until test -e " + rig.BoxRoot + "/config.toml.accepted; do sleep 0.02; done") // see copied
	return b
}

// setupBoxOf is setupBox for programs other than edge-agent.
func setupBoxOf(t *testing.T, c rig.NodeConfig, o box.Options, bin map[string]string, releases fakerelease.Options) *inBox {
	t.Helper()
	needBox(t)
	ctx := patience(t)
	r := newRig(t)
	b := &inBox{bench: &bench{Rig: r, t: t, ctx: ctx, bin: bin, releases: releases}}
	b.publish("1.0.0", "")
	c.Version, c.Binary = "1.0.0", bin["1.0.0"]
	o.HostNetwork = true
	machine := box.ForTest(ctx, t, o)
	t.Cleanup(func() {
		if t.Failed() {
			journal, _ := machine.Journal(context.Background(), "edge.service")
			t.Logf("the journal of the unit:\n%s", journal)
		}
	})
	node, err := r.InstallInBox(ctx, machine, c)
	if err != nil {
		t.Fatal(err)
	}
	b.node = node
	if err := b.node.Start(ctx); err != nil {
		t.Fatal(err)
	}
	b.id = b.wait(0, "the first health beat", func(e rig.Entry) bool { return e.Type == "capabilities" }).NodeID
	return b
}

// ends checks that the node runs version and is stable or rolled back, in its install
// root, its journal, and the manager's record.
func (b *inBox) ends(version, status, said string) {
	b.t.Helper()
	want := fmt.Sprintf("%s %s %s", version, version, status)
	// The event of an outcome may be here some moments before the last of it is recorded.
	for tick, got := time.Tick(50*time.Millisecond), ""; ; <-tick {
		st, err := b.node.Status(b.ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		tree, err := b.node.Tree(b.ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		if got = fmt.Sprintf("%s %s %s", tree.Current, tree.LastGood, st.Status); got == want {
			break
		}
		if b.ctx.Err() != nil {
			b.t.Fatalf("on the node: %s, want %s", got, want)
		}
	}
	journal, err := b.node.UnitJournal(b.ctx)
	if err != nil || !strings.Contains(journal, said) {
		b.t.Errorf("the journal does not say %q (%v)", said, err)
	}
	rec, err := b.Client.Node(b.ctx, b.id)
	if err != nil || rec.Version != version || !rec.Online {
		b.t.Errorf("at the manager: %+v, %v", rec, err)
	}
	show, err := b.node.Show(b.ctx, "ActiveState", "SubState", "StatusText")
	if err != nil || show["ActiveState"] != "active" || show["SubState"] != "running" || !strings.HasPrefix(show["StatusText"], version+" runs; ") || !strings.Contains(show["StatusText"], "; connected to wss://") {
		b.t.Errorf("systemctl show: %v, %v", show, err)
	}
}

// failedLines returns the last lines of the version that a command's rollback left, from
// the manager's event.
func (b *inBox) failedLines(command string) []string {
	b.t.Helper()
	page, err := b.Client.Events(b.ctx, api.EventQuery{NodeID: b.id, CommandID: command})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range page.Events {
		if e.ErrorCode != "upgrade_rolled_back" {
			continue
		}
		var details wire.Details
		if err := json.Unmarshal(e.Details, &details); err != nil {
			b.t.Fatal(err)
		}
		return details.Journal
	}
	return nil
}

func (b *inBox) lastCommand(mark int) string { return b.event(mark, "upgrade_rolled_back").CommandID }

// back waits until the node runs 1.0.0 again after a bad version.
func (b *inBox) back(mark, starts int) {
	b.t.Helper()
	e := b.event(mark, "upgrade_rolled_back")
	// A start that a full disk cannot record ends the trial by the link alone.
	byLink := strings.Contains(e.Message, "its starts could not be recorded") && strings.Contains(b.t.Name(), string(fakerelease.FillsDisk))
	if want := fmt.Sprintf("in %d start", starts); !strings.Contains(e.Message, want) && !byLink {
		b.t.Errorf("the event says %q, want %q", e.Message, want)
	}
	b.wait(mark, "the old version", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.0.0" })
	if lines := b.failedLines(e.CommandID); len(lines) == 0 {
		b.t.Error("the event has no line of the version that failed")
	}
}

func TestUnderSystemdUpgradeAndDowngrade(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.declares() // the sandbox of the unit permits the check of config.toml
	b.publish("1.1.0", "")
	b.publish("1.2.0", "")
	for _, version := range []string{"1.1.0", "1.2.0", "1.1.0", "1.0.0", "1.1.0"} {
		mark, _ := b.upgrade(version)
		b.event(mark, "upgrade_completed")
		b.ends(version, "stable", "upgrade completed: the new version is healthy")
	}
}

// Every kind of failure ends with the old version after the configured number of starts. A
// start that ends by itself waits for no time limit of systemd, and one that does not end
// for one. RestartSec=, and the pause before the next start, are those of the unit and of
// the watchdog, which TestUnderSystemdACrashLoopIsSlow tests.
func TestUnderSystemdBadReleasesRollBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fault   fakerelease.Fault
		options box.Options
		limits  int // time limits of systemd that two starts wait for
		said    string
	}{
		{fakerelease.ExitsAtOnce, box.Options{}, 0, "simulated crash"},
		{fakerelease.Segfaults, box.Options{}, 0, "SIGSEGV: segmentation violation"},
		{fakerelease.ReadyThenExits, box.Options{}, 0, "simulated crash after READY=1"},
		{fakerelease.ReadyThenHangs, box.Options{}, 2, "Watchdog timeout"},
		{fakerelease.Hangs, box.Options{}, 2, "start operation timed out"},
		{fakerelease.NeverAuthenticates, box.Options{}, 0, "not connected to the manager"},
		{fakerelease.WrongVersion, box.Options{}, 0, "but this program reports version 0.0.1"},
		{fakerelease.EatsMemory, box.Options{Delegate: true}, 0, "code=killed, status=9/KILL"},
		{fakerelease.DeletesPrevious, box.Options{}, 0, "simulated crash"},
		{fakerelease.FillsDisk, box.Options{DiskMB: 300}, 0, "simulated crash with a full disk"},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			b := setupBox(t, rig.NodeConfig{MaxBootAttempts: 2}, tt.options)
			if tt.fault == fakerelease.EatsMemory {
				if _, err := b.node.Exec(b.ctx, "systemctl", "set-property", "--runtime", "edge.service", "MemoryMax=128M"); err != nil {
					t.Fatal(err)
				}
			}
			b.publish("1.2.0", tt.fault)
			mark, _ := b.upgrade("1.2.0")
			b.back(mark, 2)
			b.ends("1.0.0", "rolled_back", tt.said)
			if lines := b.failedLines(b.lastCommand(mark)); !strings.Contains(strings.Join(lines, "\n"), tt.said) {
				t.Errorf("the event's journal does not say %q:\n%s", tt.said, strings.Join(lines, "\n"))
			}
			if n := b.sh("journalctl -o cat --no-pager _PID=1 -u edge | grep -cE 'timed out|[Ww]atchdog timeout' || :"); strings.TrimSpace(n) != strconv.Itoa(tt.limits) {
				t.Errorf("it waited for %s time limits, want %d", n, tt.limits)
			}
		})
	}
}

func TestUnderSystemdTheSameVersionAgain(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{MaxBootAttempts: 1}, box.Options{})
	b.publish("1.2.0", fakerelease.ExitsAtOnce)
	mark, _ := b.upgrade("1.2.0")
	b.back(mark, 1)
	b.publish("1.2.0", "")
	mark, _ = b.upgrade("1.2.0")
	b.event(mark, "upgrade_completed")
	b.ends("1.2.0", "stable", "1.2.0")
}

func TestUnderSystemdTheManagerRestarts(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 2}, box.Options{})
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_downloaded")
	if err := b.RestartManager(); err != nil {
		t.Fatal(err)
	}
	b.event(mark, "upgrade_completed")
	b.ends("1.1.0", "stable", "upgrade completed")
}

// slowLink lets 1 Mbit/s through, and cuts the tarball's first connection
// after 2 MiB.
type slowLink struct {
	http.ResponseWriter
	left *atomic.Int64
}

func (s slowLink) Write(p []byte) (int, error) {
	const chunk = 16 << 10
	for n := 0; n < len(p); {
		part := p[n:min(len(p), n+chunk)]
		if _, err := s.ResponseWriter.Write(part); err != nil {
			return n, err
		}
		n += len(part)
		if s.left.Add(-int64(len(part))) < 0 && s.left.Load() >= -chunk {
			panic(http.ErrAbortHandler)
		}
		time.Sleep(time.Duration(len(part)) * 8 * time.Second / 1_000_000)
	}
	return len(p), nil
}

func TestUnderSystemdASlowLinkWithACut(t *testing.T) {
	box.Long(t)
	b := setupBox(t, rig.NodeConfig{}, box.Options{})
	b.publish("1.1.0", "")
	var ranges sync.Map
	var left atomic.Int64
	left.Store(2 << 20)
	wrap := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".tar.gz") {
				ranges.Store(r.Header.Get("Range"), true)
				w = slowLink{w, &left}
			}
			h.ServeHTTP(w, r)
		})
	}
	b.WrapHost.Store(&wrap)
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	resumed := false
	ranges.Range(func(k, _ any) bool { resumed = resumed || strings.HasPrefix(k.(string), "bytes="); return true })
	if !resumed {
		t.Error("the download was not resumed")
	}
	b.ends("1.1.0", "stable", "upgrade completed")
}

// A sidecar with its own signers, releases and unit is upgraded and rolls back like any
// other node.
func TestUnderSystemdTheSidecar(t *testing.T) {
	dir := t.TempDir()
	players, err := rig.BuildCommand(t.Context(), "examples/sidecar", dir, "1.0.0", "1.1.0", "1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	tools := builds(t)
	b := setupBoxOf(t, rig.NodeConfig{BinaryName: "player", Tool: tools["1.0.0"], MaxBootAttempts: 2}, box.Options{}, players,
		fakerelease.Options{Repository: "acme/player", BinaryName: "player"})
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	b.ends("1.1.0", "stable", "upgrade completed")
	b.publish("1.2.0", fakerelease.ExitsAtOnce)
	mark, _ = b.upgrade("1.2.0")
	b.event(mark, "upgrade_rolled_back")
	b.wait(mark, "the old version", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.1.0" })
	b.ends("1.1.0", "rolled_back", "rolled back: 1.2.0")
}

// A manager that answers 503 for longer than the window does not end the trial of the new
// version: the agent requests more time from systemd.
func TestUnderSystemdTheManagerIsBusyInATrial(t *testing.T) {
	box.Long(t)
	b := setupBox(t, rig.NodeConfig{MaxBootAttempts: 1}, box.Options{})
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_staged")
	b.Manager.SetUnavailable(5 * time.Second)
	b.onTrial()
	time.AfterFunc(15*time.Second, func() { b.Manager.SetUnavailable(0) }) // the window is 10 s
	e := b.event(mark, "upgrade_completed")
	if !strings.Contains(e.Message, "after 1 start; the trial was extended: the manager answers 503") {
		t.Errorf("the event says %q", e.Message)
	}
	b.ends("1.1.0", "stable", "the manager is at fault, not this version")
}
