package rig_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/line"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
)

// machine is a node under a real systemd, with a line to its manager.
type machine struct {
	*inBox
	line *line.Line
	mark int // of the timeline, before the upgrade
}

// boxRow is a row that needs a real systemd.
type boxRow struct {
	name    string
	fault   string // of 1.1.0
	options box.Options
	faster  int  // 0: faster
	down    bool // the line is down for 1.1.0
	setup   func(*machine)
	during  func(*machine)
	end     ending
	events  []string // as those of verdict
}

// verdict makes a row of the table.
func (r boxRow) verdict() verdict { return verdict{name: r.name, run: r.try} }

// newMachine boots a machine whose node runs 1.0.0.
func (r boxRow) newMachine(t *testing.T) *machine {
	t.Helper()
	box.Need(t)
	ctx := patience(t)
	m := &machine{inBox: &inBox{bench: &bench{Rig: newRig(t), t: t, ctx: ctx, bin: builds(t)}}}
	m.declares()
	m.publish("1.0.0", "")
	manager, err := url.Parse(m.URL)
	if err != nil {
		t.Fatal(err)
	}
	if m.line, err = line.New(manager.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.line.Close)
	r.options.HostNetwork = true
	b := box.ForTest(ctx, t, r.options)
	t.Cleanup(func() {
		if t.Failed() {
			journal, _ := b.Journal(context.Background())
			t.Logf("the journal:\n%s", journal)
			for _, e := range m.Timeline.Since(0) {
				t.Logf("%s %-8s %-14s %s %s %s", e.At.Format("05.000"), e.From, e.Type, e.Version, e.ErrorCode, e.Message)
			}
		}
	})
	if r.faster == 0 {
		r.faster = faster
	}
	m.node, err = m.InstallInBox(ctx, b, rig.NodeConfig{
		Version: "1.0.0", Binary: m.bin["1.0.0"], Commands: m.releases.Commands, URLs: []string{"wss://" + m.line.Addr()},
		WindowSecs: windowSecs, HoldSecs: holdSecs, Env: []string{fmt.Sprintf("EDGE_AGENT_SIM_FASTER=%d", r.faster)},
	})
	if err != nil {
		t.Fatal(err)
	}
	// Without these settings the unit sees the box's own boot id, which changes.
	for _, unit := range []string{"edge.service", "edge-watchdog.service"} {
		m.sh("mkdir -p /etc/systemd/system/" + unit + ".d && printf '[Service]\\nProtectKernelTunables=no\\nProtectControlGroups=no\\n' >/etc/systemd/system/" + unit + ".d/50-boot.conf")
	}
	if r.setup != nil {
		r.setup(m)
	}
	if err := m.node.Start(ctx); err != nil {
		t.Fatal(err)
	}
	m.id = m.wait(0, "the first health beat", func(e rig.Entry) bool { return e.Type == "capabilities" }).NodeID
	return m
}

// try runs the row to its end.
func (r boxRow) try(t *testing.T) {
	m := r.newMachine(t)
	w := &world{bench: m.bench}
	w.releases = fakerelease.Options{Commands: []string{release.CommandProbe, release.CommandConfigCheck}}
	w.release(r.fault)
	if r.down {
		if err := m.line.SetLater(line.Refused); err != nil { // the session of 1.0.0 goes on
			t.Fatal(err)
		}
	}
	m.mark, _ = m.upgrade("1.1.0")
	w.mark = m.mark
	m.until("the swap", func(tree state.Tree) bool { // a version that ends at once may be gone between two looks
		return tree.Current.String() == "1.1.0" || slices.Contains(w.codes(), "upgrade_rolled_back")
	})
	r.during(m)
	m.set(line.Sound)
	version := map[ending]string{kept: "1.1.0", rolledBack: "1.0.0"}[r.end]
	status := map[ending]state.Status{kept: state.Stable, rolledBack: state.RolledBack}[r.end]
	m.until(string(r.end), func(tree state.Tree) bool {
		return tree.Current.String() == version && tree.LastGood.String() == version && m.says(status)
	})
	want := append([]string{"upgrade_started", "upgrade_downloaded", "upgrade_staged"}, r.events...)
	if r.events == nil {
		want = append(want, map[ending]string{kept: "upgrade_completed", rolledBack: "upgrade_rolled_back"}[r.end])
	}
	m.event(m.mark, want[len(want)-1])
	if got := w.codes(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// codes returns the codes of the node's events since the upgrade was requested.
func (w *world) codes() []string {
	var codes []string
	for _, e := range w.Timeline.Since(w.mark) {
		if e.Type == "event" && !slices.Contains(codes, e.ErrorCode) {
			codes = append(codes, e.ErrorCode)
		}
	}
	return codes
}

func (m *machine) set(f line.Fault) {
	m.t.Helper()
	if err := m.line.Set(f); err != nil {
		m.t.Error(err)
	}
}

// until waits until the links of the node are as is says. It looks often, so is asks the node
// only once they may be.
func (m *machine) until(what string, is func(state.Tree) bool) {
	m.t.Helper()
	for tick := time.Tick(50 * time.Millisecond); ; <-tick {
		tree, err := m.node.Tree(m.ctx)
		if err == nil && is(tree) {
			return
		}
		if m.ctx.Err() != nil {
			m.t.Fatalf("waiting for %s: %v; it is %+v, %v", what, context.Cause(m.ctx), tree, err)
		}
	}
}

// says reports whether the node says that of itself.
func (m *machine) says(want state.Status) bool {
	st, err := m.node.Status(m.ctx)
	return err == nil && st.Status == want
}

// ready waits until a start of 1.1.0 is ready.
func (m *machine) ready() {
	m.t.Helper()
	m.sh(`timeout 60 sh -c 'until test "$(systemctl show -P ActiveState edge)" = active && readlink ` + rig.BoxRoot + `/current | grep -q 1.1.0; do sleep 0.1; done'`)
}

// boot powers the machine on, after it went down.
func (m *machine) boot() {
	m.t.Helper()
	if err := m.node.Boot(m.ctx); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) cut() {
	m.t.Helper()
	if err := m.node.Cut(m.ctx, false); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) reboot() {
	m.t.Helper()
	m.node.Exec(m.ctx, "systemctl", "reboot") // its own connection may end first
	if err := m.node.WaitOff(m.ctx); err != nil {
		m.t.Fatal(err)
	}
}

// uncounted checks that no start so far counts against 1.1.0.
func (m *machine) uncounted() {
	m.t.Helper()
	if st, err := m.node.Status(m.ctx); err != nil || st.BootAttempts != 1 || st.Status != state.PendingHealth {
		m.t.Errorf("%+v, %v, want a trial in which no start counts", st, err)
	}
}

// downs takes the machine down whenever the version on trial wants it, until it is rolled
// back, and returns how often.
func (m *machine) downs(down func()) (n int) {
	m.t.Helper()
	waits := func() {} // ends the wait for a boot
	defer func() { waits() }()
	for tick := time.Tick(10 * time.Millisecond); ; <-tick {
		if m.ctx.Err() != nil {
			m.t.Fatalf("after %d times: %v", n, context.Cause(m.ctx))
		}
		path, err := m.node.Path(m.ctx, filepath.Join(rig.BoxRoot, "down"))
		if err != nil {
			continue // it is not up yet
		}
		if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			if tree, err := m.node.Tree(m.ctx); err == nil && tree.Current.String() == "1.0.0" {
				return n
			}
			continue
		} else if err != nil {
			m.t.Fatal(err)
		}
		n++
		waits() // a machine that goes down while it boots never has booted
		down()
		ctx, cancel := context.WithCancel(m.ctx)
		booted := make(chan error, 1)
		go func() { booted <- m.node.Boot(ctx) }()
		waits = func() { cancel(); <-booted }
	}
}

// boxRows are the rows in which systemd's own statements matter.
func boxRows() (worldRows, versionRows []verdict) {
	for _, r := range []boxRow{
		{name: "five operator restarts", down: true, during: func(m *machine) {
			for range 5 { // before READY=1 as well: each comes as soon as the new start has begun
				m.sh("export ID=$(systemctl show -P InvocationID edge); systemctl restart --no-block edge.service; timeout 20 sh -c 'while test $(systemctl show -P InvocationID edge) = $ID; do sleep 0.05; done'")
			}
			m.ready()
			m.sh("systemctl restart edge.service")
			m.uncounted()
		}},
		{name: "five reboots", down: true, during: func(m *machine) {
			for range 5 {
				m.reboot()
				m.boot()
			}
			m.ready()
			m.uncounted()
		}},
		{name: "power cuts before the check held", down: true, options: box.Options{DiskMB: 512}, during: func(m *machine) {
			for range 4 {
				m.cut()
				m.boot()
			}
			m.ready()
			m.uncounted()
		}},
		{name: "power cuts after the check held", down: true, options: box.Options{DiskMB: 512}, during: func(m *machine) {
			for range 4 {
				m.ready()
				m.journal("edge.service", "this version is unproven")
				m.sh("journalctl --rotate -q; journalctl -q --vacuum-time=1s 2>/dev/null")
				m.cut()
				m.boot()
			}
			m.uncounted()
		}},
		{name: "switched off every evening with the line down", down: true, faster: 300, during: func(m *machine) {
			for range 11 {
				m.ready()
				// This start ran for more than ten (scaled) minutes.
				m.sh(`cd ` + rig.BoxRoot + `/trial/*; timeout 60 sh -c 'until n=$(grep -o ",.starts.:[0-9]*" starts.json | cut -d: -f2) && grep -q "start.:$n,.*calm.:true" judge.json; do sleep 0.1; done'`)
				if err := m.node.Off(m.ctx); err != nil {
					m.t.Fatal(err)
				}
				m.boot()
			}
			m.uncounted()
		}},
		{name: "a slow stop", setup: func(m *machine) {
			m.dropIn("Service", "ExecStopPost=/bin/sleep 14\nTimeoutStopSec=60") // three and a half windows
		}, during: func(m *machine) { m.ready() }},
		{name: "systemctl answers after 10 s", setup: func(m *machine) {
			m.sh(slowSystemctl)
		}, during: func(m *machine) { m.ready() }},
	} {
		r.end = kept
		worldRows = append(worldRows, r.verdict())
	}
	for _, r := range []boxRow{
		{name: "is OOM-killed", fault: "eats-memory", options: box.Options{Delegate: true}, setup: func(m *machine) { m.dropIn("Service", "MemoryMax=128M") }, during: func(*machine) {}},
		{name: "is answered by an old worker", setup: func(m *machine) {
			m.sh("cp /bin/sleep " + rig.BoxRoot + "/versions/1.0.0/worker && chown edge: " + rig.BoxRoot + "/versions/1.0.0/worker")
			m.dropIn("Service", "ExecStartPost=/bin/sh -c \"setsid "+rig.BoxRoot+"/versions/1.0.0/worker 1000 >/dev/null 2>&1 &\"")
		}, during: func(m *machine) {
			if e := m.event(m.mark, "upgrade_rolled_back"); !strings.Contains(e.Message, "a process of 1.0.0 still runs") {
				m.t.Errorf("the event says %q", e.Message)
			}
		}},
		{name: "panics the machine at once", fault: "takes-the-machine-down 0s", during: func(m *machine) { m.atLast(m.downs(m.cut)) }},
		{name: "panics the machine after its check held", fault: "takes-the-machine-down " + (window / 2).String(), during: func(m *machine) { m.atLast(m.downs(m.cut)) },
			events: []string{"upgrade_completed", "upgrade_rolled_back"}},
		{name: "reboots the machine cleanly each time", fault: "takes-the-machine-down 0s", setup: func(m *machine) {
			m.dropIn("Service", "TimeoutStopSec=5") // it may stop itself after systemd asked it to end
		}, during: func(m *machine) { m.atLast(m.downs(m.reboot)) }},
	} {
		r.end = rolledBack
		versionRows = append(versionRows, r.verdict())
	}
	return worldRows, versionRows
}

// atLast checks how often a version took the machine down before it was rolled back.
func (m *machine) atLast(n int) {
	m.t.Helper()
	if n > 12 {
		m.t.Errorf("the machine went down %d times, want 12 at most", n)
	}
}
