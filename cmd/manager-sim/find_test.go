package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/internal/supervise"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
)

// newLineContext returns the context of a command that does not end by itself.
func newLineContext(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

// lineWriter calls cancel after a number of lines.
type lineWriter struct {
	mu     sync.Mutex
	b      strings.Builder
	after  int
	cancel func()
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	if strings.Count(l.b.String(), "\n") >= l.after {
		l.cancel()
	}
	return len(p), nil
}

func (l *lineWriter) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestPick(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 15 {
		many = append(many, fmt.Sprintf("beef%02d", i))
	}
	ids := append([]string{"1e8821f6-0acc", "1e8821ff-0acc", "abcd", "abcdef", "n1"}, many...)
	for _, tt := range []struct {
		name, want, err string
		code            int
	}{
		{"1e8821f6-0acc", "1e8821f6-0acc", "", 0},
		{"1e8821f6", "1e8821f6-0acc", "", 0},
		{"abcd", "abcd", "", 0}, // exact, and the beginning of another one
		{"abcde", "abcdef", "", 0},
		{"n1", "n1", "", 0}, // exact, and short
		{"1e8821f", "", "1e8821f6-0acc\n  1e8821ff-0acc", cli.Misuse},
		{"1e8", "", "at least its first 4 characters", cli.Misuse},
		{"", "", "at least its first 4 characters", cli.Misuse},
		{"beef", "", "and 5 more", cli.Misuse},
		{"0000", "", `there is no node whose id is or begins with "0000"`, cli.Failed},
		{"E882", "", "there is no node", cli.Failed},
		{"1E8821F6", "1e8821f6-0acc", "", 0},
		{"1E8821F6-0ACC", "1e8821f6-0acc", "", 0},
	} {
		got, err := pick("node", tt.name, ids)
		if got != tt.want || (err == nil) != (tt.err == "") {
			t.Errorf("%q: %q, %v", tt.name, got, err)
		}
		if err != nil && !strings.Contains(cli.PlainLines(err.Error()), tt.err) {
			t.Errorf("%q: %v, want %q", tt.name, err, tt.err)
		}
	}
}

// Every command accepts an abbreviated id, and lists the candidates of an ambiguous
// one. A node of `node run` has a name.
func TestNodesByAbbreviation(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	nodes := m.fleet(t.Context(), fleet.Config{Nodes: 3})
	m.group("Zürich 1", nodes[:1])
	id := nodes[0].ID
	for _, args := range [][]string{{"node", "show", id[:8]}, {"events", "--node", id[:8]}, {"upgrade", id[:8], "1.1.0", "--wait"}} {
		if _, errs, code := m.run(args...); code != cli.OK {
			t.Errorf("%q: %d %s", args, code, errs)
		}
	}
	for _, args := range [][]string{{"node", "show", id[:3]}, {"events", "--node", ""}, {"upgrade", "abc", "1.1.0"}} {
		if _, errs, code := m.run(args...); code != cli.Misuse || !strings.Contains(errs, "at least its first 4 characters") {
			t.Errorf("%q: %d %s", args, code, errs)
		}
	}
	for _, args := range [][]string{{"node", "show", "zzzz"}, {"events", "--node", "zzzz"}, {"upgrade", "zzzz", "1.1.0"}, {"node", "remove", "zzzz"}} {
		if _, errs, code := m.run(args...); code != cli.Failed || !strings.Contains(errs, "there is no node") {
			t.Errorf("%q: %d %s", args, code, errs)
		}
	}
	if _, errs, code := m.run("node", "remove", id[:5]); code != cli.Misuse || !strings.Contains(errs, "at least 8 characters of the id: "+id) {
		t.Errorf("a removal by a short id: %d %s", code, errs)
	}
	local := nodeUnder(m.dir, "my-node")
	if err := os.MkdirAll(local.root(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(local.root(), "credentials.json"), []byte(`{"node_id":"`+id+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := m.run("node", "show", "my-node")
	if code != cli.OK || !strings.Contains(out, id) || !strings.Contains(out, "Zürich 1") {
		t.Errorf("by its name: %d %s%s", code, out, errs)
	}
	if out, _, _ := m.run("nodes"); !strings.Contains(out, id+" (my-node)  online") || !strings.Contains(out, "HEALTH") || !strings.Contains(out, "Zürich 1") {
		t.Errorf("nodes prints no health, or no name of the group:\n%s", out)
	}
}

// An abbreviated id of a removed node shows its history. Every other command reports
// that the node was removed.
func TestRemovedNodes(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	id := m.fleet(t.Context(), fleet.Config{Nodes: 2})[0].ID
	if _, errs, code := m.run("upgrade", id[:8], "1.1.0", "--wait"); code != cli.OK {
		t.Fatalf("%d %s", code, errs)
	}
	prefix := strings.ToUpper(id[:8])
	if out, errs, code := m.run("node", "remove", prefix, "--yes"); code != cli.OK || !strings.Contains(out, id+" is removed") {
		t.Fatalf("remove: %d %s", code, errs)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"events", "--node", prefix}, cli.OK, "upgrade_completed"},
		{[]string{"events", "--node", id}, cli.OK, "upgrade_completed"},
		{[]string{"node", "show", prefix}, cli.OK, "removed"},
		{[]string{"node", "remove", prefix}, cli.Failed, id + " was removed already, at 2"},
		{[]string{"node", "remove", id}, cli.Failed, id + " was removed already, at 2"},
		{[]string{"upgrade", prefix, "1.1.0"}, cli.Refused, "The node was removed on "},
	} {
		if out, errs, code := m.run(tt.args...); code != tt.code || !strings.Contains(out+errs, tt.want) {
			t.Errorf("%q: %d %s%s", tt.args, code, out, errs)
		}
	}
}

// The states of upgrades have the same names as on the pages.
func TestUpgradeStateNames(t *testing.T) {
	t.Parallel()
	for state, want := range map[api.UpgradeState]string{
		api.Idle: "idle", api.Queued: "queued", api.Sent: "queued", api.Staging: "staging", api.Staged: "restarting", api.Proving: "on trial",
		api.Updated: "updated", api.Failed: "upgrade failed", api.RolledBack: "rolled back", api.Changed: "runs another version", api.Superseded: "superseded",
	} {
		if got := upgradeState(api.Node{UpgradeState: state}); got != want {
			t.Errorf("%s is called %q, not %q", state, got, want)
		}
	}
	if got := upgradeState(api.Node{UpgradeState: api.RolledBack, Dependency: true}); got != "rolled back, probably a dependency" {
		t.Errorf("it is called %q", got)
	}
	var n api.Node
	if err := json.Unmarshal([]byte(`{"upgrade_state":"staging","upgrade":{"progress":{"phase":"x","bytes_done":40,"bytes_total":100}}}`), &n); err != nil || upgradeState(n) != "staging 40 %" {
		t.Errorf("%q (%v)", upgradeState(n), err)
	}
	// What a node makes up does not spoil the list.
	if err := json.Unmarshal([]byte(`{"upgrade_state":"staging","upgrade":{"progress":{"bytes_total":"many"}}}`), &n); err != nil || upgradeState(n) != "staging" {
		t.Errorf("%q (%v)", upgradeState(n), err)
	}
}

// "node run" prints a refusal by the manager once.
func TestNodeRunPrintsRefusals(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	r := nodeRun{out: &out, node: nodeUnder(t.TempDir(), "my-node")}
	for _, status := range []string{"1.0.0 runs; connected to wss://m since 2026-01-01T00:00:00Z", "1.0.0 runs; not connected to wss://m since 2026-01-01T00:00:00Z: the manager refuses this node for now: node n was removed",
		"1.0.0 runs; not connected to wss://m since 2026-01-01T00:00:00Z: the manager refuses this node for now: node n was removed"} {
		r.printChange(supervise.Event{Kind: supervise.StatusText, Text: status})
	}
	if out.String() != "00:00:00  the manager refuses this node for now: node n was removed\n" {
		t.Errorf("%q", out.String())
	}
}

func TestNodeNames(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{"my-node": true, "second": true, "n1": true, "beef": false, "a-1": false, "My": false, "": false, "../x": false, "1st": false, strings.Repeat("z", 33): false} {
		if err := checkNodeName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// An unknown severity is an error that lists the valid ones. An empty result is
// reported.
func TestEventsThatMatchNothing(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	for _, s := range []string{"bad", "Warning", "warning,critical", " "} {
		if _, errs, code := m.run("events", "--severity", s); code != cli.Misuse || !strings.Contains(errs, "is none of info, minor, warning, major, critical") {
			t.Errorf("--severity %q: %d %s", s, code, errs)
		}
	}
	for _, args := range [][]string{nil, {"--search", "x"}, {"--severity", "critical"}, {"--json"}} {
		if _, errs, code := m.run(append([]string{"events"}, args...)...); code != cli.OK || errs != "No events match.\n" {
			t.Errorf("events %q: %d %q", args, code, errs)
		}
	}
	if _, errs, code := m.run("nodes"); code != cli.OK || errs != "No nodes.\n" {
		t.Errorf("nodes: %d %q", code, errs)
	}
}
