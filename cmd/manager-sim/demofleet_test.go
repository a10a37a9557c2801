package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"golang.org/x/sync/errgroup"
)

func TestDemoFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		nodes     int
		spec      string
		want, err string
	}{
		{5, usualFaults, "refused rolled-back slow offline degraded", ""},
		{2, usualFaults, "refused rolled-back", ""}, // as many as there are nodes
		{4, "slow=1,refused=2", "refused refused slow", ""},
		{4, "slow=0", "", ""},
		{2, "slow=3", "", "3 faults are too many"},
		{2, "slow=999999999999999999999", "", "is not KIND=NUMBER"},
		{2, "slow=999999999", "", "are too many"},
		{2, "slow", "", "is not KIND=NUMBER"},
		{2, "slow=-1", "", "is not KIND=NUMBER"},
		{2, "slow=1,slow=1", "", "each once"},
		{2, "", "", "is not KIND=NUMBER"},
		{2, "on-fire=1", "", "degraded "},
		{0, usualFaults, "", "needs --demo-fleet"},
		{-1, usualFaults, "", "--demo-fleet -1"},
	} {
		d := demoFleet{nodes: tt.nodes, spec: tt.spec}
		err := d.check(true)
		if got := strings.Join(d.faults, " "); (err == nil) != (tt.err == "") || err == nil && got != tt.want || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%d nodes, %q: %.80q, %v", tt.nodes, tt.spec, got, err)
		}
	}
}

// demo starts a demo fleet at m, and returns a function that stops it.
func (m *testManager) demo(nodes int, spec string) (stop func()) {
	m.t.Helper()
	d := demoFleet{nodes: nodes, spec: spec, step: 20 * time.Millisecond}
	if err := d.check(spec != ""); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	g, ctx := errgroup.WithContext(ctx)
	if err := d.start(ctx, g, m.st, m.dir, "https://"+m.addr, testToken, m.cert); err != nil {
		m.t.Fatal(err)
	}
	return func() {
		cancel()
		if err := g.Wait(); err != nil {
			m.t.Error(err)
		}
	}
}

// grouped waits until the fleet's group has a number of nodes, and returns their ids.
func (m *testManager) grouped(nodes int) []string {
	m.t.Helper()
	var ids []string
	m.await("the group has its nodes", func() bool {
		all, err := m.st.Nodes(m.t.Context())
		if err != nil {
			m.t.Fatal(err)
		}
		ids = nil
		for _, n := range all {
			if n.GroupID != "" && n.RemovedAt.IsZero() && slices.Contains(n.Capabilities, "upgrade") {
				ids = append(ids, n.ID)
			}
		}
		return len(ids) == nodes
	})
	return ids
}

// With the usual faults a rollout pauses, and continues after each retry until it
// completes. So an operator can try pause, retry, resume and abort.
func TestDemoFaultsPauseAndRetry(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	defer m.demo(6, usualFaults)()
	m.grouped(6)
	out, errs, code := m.run("rollout", "start", demoGroup, "1.1.0", "--settle-secs", "0", "--wait", "--timeout", "1m")
	if code != cli.Refused || !strings.Contains(out, "paused") {
		t.Fatalf("the rollout does not pause: %d\n%s%s", code, out, errs)
	}
	for retries := 0; code == cli.Refused; retries++ {
		if retries == 3 {
			t.Fatalf("the rollout pauses again after %d retries\n%s%s", retries, out, errs)
		}
		out, errs, code = m.run("rollout", "retry", demoGroup, "--wait", "--timeout", "1m")
	}
	if code != cli.OK || !strings.Contains(out, "completed") || !strings.Contains(out, "6 updated") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	if out, errs, code := m.run("rollout", "start", demoGroup, "1.2.0", "--settle-secs", "0", "--wait", "--timeout", "1m"); code != cli.Refused {
		t.Fatalf("the second rollout does not pause: %d\n%s%s", code, out, errs)
	}
	if out, errs, code := m.run("rollout", "abort", demoGroup); code != cli.OK || !strings.Contains(out, "aborted") {
		t.Errorf("abort: %d\n%s%s", code, out, errs)
	}
}

// A node with the fault "offline" disconnects and reconnects.
func TestDemoOffline(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	defer m.demo(1, "offline=1")()
	id := m.grouped(1)[0]
	var seen []bool
	m.await("the node has disconnected twice and connected again", func() bool {
		n := m.node(id)
		if len(seen) == 0 || seen[len(seen)-1] != n.Online {
			seen = append(seen, n.Online)
		}
		return len(seen) >= 5
	})
}

// A restarted manager has the same nodes with the same versions.
func TestDemoFleetIsReused(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	stop := m.demo(3, "")
	before := m.grouped(3)
	if _, errs, code := m.run("upgrade", before[0], "1.1.0", "--wait"); code != cli.OK {
		t.Fatal(errs)
	}
	stop()
	m.stop()
	st, err := os.Stat(filepath.Join(m.dir, demoFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%s: %v %v", demoFile, st, err)
	}
	m.start()
	stop = m.demo(4, "")
	after := m.grouped(4)
	for _, id := range before {
		if !slices.Contains(after, id) {
			t.Errorf("the node %s is another one now", id)
		}
	}
	var n api.Node
	m.await("the node is back", func() bool {
		n = m.node(before[0])
		return n.Online
	})
	if n.Version != "1.1.0" || n.UpgradeState != api.Updated {
		t.Errorf("it runs %s, and is %s", n.Version, n.UpgradeState)
	}
	stop()

	// The file of a manager whose database is new is of no use.
	other := startManager(t)
	b, err := os.ReadFile(filepath.Join(m.dir, demoFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(other.dir, demoFile), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	stop = other.demo(2, "")
	for _, id := range other.grouped(2) {
		if slices.Contains(after, id) {
			t.Errorf("the node %s is of another manager", id)
		}
	}
	stop()

	// A smaller fleet removes the nodes that it does not run.
	defer other.demo(1, "")()
	out, _, _ := other.run("nodes", "--removed")
	left := other.grouped(1)
	if out2, _, _ := other.run("nodes"); strings.Count(out, "\n") != 2 || !strings.Contains(out2, left[0]) || strings.Count(out2, "\n") != 2 {
		t.Errorf("the nodes:\n%s\nand removed:\n%s", out2, out)
	}
}

// The list of nodes shows degraded nodes.
func TestDemoDegraded(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	defer m.demo(2, "degraded=1")()
	m.grouped(2)
	out, errs, code := m.run("nodes")
	if code != cli.OK || !strings.Contains(out, "degraded") || !strings.Contains(out, " ok ") || !strings.Contains(out, demoGroup) {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
}
