package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// An unproven version is shown with what it waits for. A newer one can be requested, ends
// the wait for the unproven one, and rolls back to the version before both.
func TestUnprovenVersions(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	fates := map[string]fleet.Outcome{"1.1.0": fleet.Unproven, "1.2.0": fleet.RollsBack}
	id := m.fleet(t.Context(), fleet.Config{Nodes: 1, Outcome: func(_ int, v string) fleet.Outcome { return fates[v] }})[0].ID
	const waits = "unproven: waits for a session with the manager that lasts 10s (simulated), since 2"
	type result struct {
		out, errs string
		code      int
	}
	first := make(chan result, 1)
	go func() {
		out, errs, code := m.run("upgrade", id, "1.1.0", "--wait")
		first <- result{out, errs, code}
	}()
	m.await("it is unproven", func() bool { return m.node(id).Trial == api.TrialUnproven })
	for _, tt := range []struct {
		want string
		args []string
	}{{waits, []string{"node", "show", id}}, {"unproven", []string{"nodes"}}} {
		if out, errs, code := m.run(tt.args...); code != cli.OK || !strings.Contains(out, tt.want) {
			t.Errorf("%q: %d %s%s", tt.args, code, out, errs)
		}
	}
	if out, errs, code := m.run("upgrade", id, "1.2.0", "--wait"); code != cli.RolledBack || !strings.Contains(errs, "rolled back from 1.2.0 to 1.0.0") {
		t.Errorf("a newer version: %d %s%s", code, out, errs)
	}
	if r := <-first; r.code != cli.Refused || !strings.Contains(r.errs, "a newer version took its place (upgrade_superseded)") {
		t.Errorf("the wait for the unproven one: %d %s%s", r.code, r.out, r.errs)
	}
}

// A rollout waits for an unproven node, counts it apart, and prints what it waits for.
func TestUnprovenNodesOfARollout(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	nodes := m.fleet(t.Context(), fleet.Config{Nodes: 2, Outcome: func(int, string) fleet.Outcome { return fleet.Unproven }})
	m.group("site", nodes)
	if _, errs, code := m.run("rollout", "start", "site", "1.1.0"); code != cli.OK {
		t.Fatal(code, errs)
	}
	m.await("it is unproven", func() bool {
		out, _, _ := m.run("rollout", "show", "site")
		return strings.Contains(out, "running, wave 1 of 2: 1 unproven, 1 waiting") && strings.Contains(out, " unproven: waits for a session with the manager that lasts 10s (simulated), since 2")
	})
}

func TestFallenNodesArePrinted(t *testing.T) {
	t.Parallel()
	for _, code := range []string{rollout.Vanished, rollout.Degraded, rollout.OtherVersion} {
		got := failureOf(api.RolloutNode{State: rollout.NodeFailed, Code: code, Message: "m"})
		if want := fmt.Sprintf("failed (%s): m\n    %s\n    %s", code, meaning(code), remedy(code)); got != want || meaning(code) == "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
