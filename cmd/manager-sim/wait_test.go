package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/manager-sim/web"
)

func meaning(code string) string { m, _ := web.Meaning(code); return m }

func remedy(code string) string { _, r := web.Meaning(code); return r }

// Each outcome of an upgrade has its own exit code. The error has the node's message
// and the remedy.
func TestUpgradeWaitExitCodes(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	fates := map[string]fleet.Outcome{"1.1.0": fleet.Completes, "1.2.0": fleet.RollsBack, "1.3.0": fleet.Refused, "1.4.0": fleet.NeverEnds}
	id := m.fleet(t.Context(), fleet.Config{Nodes: 1, Outcome: func(_ int, v string) fleet.Outcome { return fates[v] }})[0].ID
	for _, tt := range []struct {
		args []string
		code int
		out  string
		err  []string
	}{
		{[]string{"1.1.0", "--wait"}, cli.OK, "upgrade_completed      1.1.0 is healthy", nil},
		{[]string{"1.1.0", "--wait"}, cli.OK, " already runs 1.1.0\n", nil},
		{[]string{"1.2.0", "--wait"}, cli.RolledBack, "upgrade_rolled_back    rolled back from 1.2.0", []string{"rolled back (upgrade_rolled_back): rolled back from 1.2.0 to 1.1.0", meaning("upgrade_rolled_back"), remedy("upgrade_rolled_back")}},
		{[]string{"1.3.0", "--wait"}, cli.Refused, "upgrade_checksum_mismatch", []string{"failed (upgrade_checksum_mismatch): the tarball has another SHA-256", meaning("upgrade_checksum_mismatch"), remedy("upgrade_checksum_mismatch")}},
		{[]string{"1.5.0", "--wait", "--timeout", "-1s"}, cli.Misuse, "", []string{"--timeout"}},
		{[]string{"v1.5.0"}, cli.Misuse, "", []string{"v1.5.0"}},
		{[]string{"1.4.0", "--wait", "--timeout", "1s"}, cli.TimedOut, "upgrade_started", []string{"no outcome of the upgrade to 1.4.0 within 1s; it continues"}},
	} {
		out, errs, code := m.run(append([]string{"upgrade", id[:8]}, tt.args...)...)
		if code != tt.code || !strings.Contains(out, tt.out) {
			t.Errorf("upgrade %q: exit code %d, want %d\n%s%s", tt.args, code, tt.code, out, errs)
		}
		for _, want := range tt.err {
			if !strings.Contains(errs, want) {
				t.Errorf("upgrade %q: the error has no %q: %s", tt.args, want, errs)
			}
		}
		if tt.code == cli.OK && errs != "" && !strings.Contains(errs, "is offline since") { // between its upgrade and its next session
			t.Errorf("upgrade %q prints %s", tt.args, errs)
		}
	}
}

// With --json, --wait prints one object a line, including the outcome.
func TestUpgradeWaitJSON(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	id := m.fleet(t.Context(), fleet.Config{Nodes: 1, Outcome: func(int, string) fleet.Outcome { return fleet.RollsBack }})[0].ID
	out, errs, code := m.run("upgrade", id, "1.1.0", "--wait", "--json")
	if code != cli.RolledBack {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	codes := ""
	for _, r := range validJSONLines(t, out) {
		if r["type"] == "event" {
			codes += " " + r["error_code"].(string)
		}
	}
	if codes != " upgrade_started upgrade_downloaded upgrade_staged upgrade_rolled_back" {
		t.Errorf("events:%s", codes)
	}
}

// An offline node is reported at once. A node that never connects is unreachable, and
// so is a manager that does not answer.
func TestUpgradeUnreachable(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	ctx, cancel := context.WithCancel(t.Context())
	id := m.fleet(ctx, fleet.Config{Nodes: 1})[0].ID
	cancel()
	m.await("the node is offline", func() bool {
		return !m.node(id).Online
	})
	_, errs, code := m.run("upgrade", id, "1.1.0", "--wait", "--timeout", "500ms")
	if code != cli.Unreachable || !strings.Contains(errs, "is offline since 2") || !strings.Contains(errs, "did not connect within 500ms; the command waits for it") {
		t.Errorf("an offline node: %d %s", code, errs)
	}
	m.stop()
	for _, args := range [][]string{{"upgrade", id, "1.1.0", "--wait"}, {"nodes"}, {"rollout", "start", "x", "1.1.0", "--wait"}, {"events", "--follow"}} {
		if _, errs, code := m.run(args...); code != cli.Unreachable || !strings.Contains(errs, "does the manager run?") {
			t.Errorf("%q without a manager: %d %s", args, code, errs)
		}
	}
	m.start()
}

// A restart of the manager during an upgrade does not hide its outcome, even if it
// happened while no stream was open.
func TestWaitOutlivesTheManager(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	nodes := m.fleet(t.Context(), fleet.Config{Nodes: 2, Outcome: func(_ int, v string) fleet.Outcome {
		if v == "1.2.0" {
			return fleet.RollsBack
		}
		return fleet.Completes
	}})
	m.group("site one", nodes)
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"upgrade", nodes[0].ID, "1.1.0", "--wait"}, cli.OK, "upgrade_completed"},
		{[]string{"upgrade", nodes[0].ID, "1.2.0", "--wait"}, cli.RolledBack, "upgrade_rolled_back"},
		{[]string{"rollout", "start", "site one", "1.3.0", "--settle-secs", "0", "--wait"}, cli.OK, "completed"},
	} {
		// The manager restarts as soon as the command is given.
		type result struct {
			out, errs string
			code      int
		}
		done := make(chan result, 1)
		before := m.newestEvent()
		go func() {
			out, errs, code := m.run(tt.args...)
			done <- result{out, errs, code}
		}()
		m.await("the upgrade has begun", func() bool {
			return m.newestEvent() > before
		})
		m.stop()
		m.start()
		if r := <-done; r.code != tt.code || !strings.Contains(r.out, tt.want) {
			t.Errorf("%q: exit code %d, want %d\n%s%s", tt.args, r.code, tt.code, r.out, r.errs)
		}
	}
}

// A rollout that pauses at a failure exits with 4, and its successful retry with 0.
func TestRolloutWait(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	var failed atomic.Bool
	nodes := m.fleet(t.Context(), fleet.Config{Nodes: 3, Outcome: func(node int, v string) fleet.Outcome {
		if node == 1 && v == "1.1.0" && !failed.Swap(true) {
			return fleet.Refused
		}
		if v == "1.2.0" {
			return fleet.NeverEnds
		}
		return fleet.Completes
	}})
	m.group("site one", nodes)
	check := func(want int, texts []string, args ...string) {
		t.Helper()
		out, errs, code := m.run(args...)
		for _, text := range texts {
			if !strings.Contains(out+errs, text) {
				t.Errorf("%q: no %q", args, text)
			}
		}
		if code != want || t.Failed() {
			t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, out, errs)
		}
	}
	check(cli.OK, []string{"wave 3: 1 node\n"}, "rollout", "start", "site one", "1.1.0", "--dry-run", "--wait")
	check(cli.Refused, []string{"the rollout is paused: ", "rollout retry|resume|abort", " failed (upgrade_checksum_mismatch): the tarball has another SHA-256", meaning("upgrade_checksum_mismatch"), remedy("upgrade_checksum_mismatch")},
		"rollout", "start", "site one", "1.1.0", "--settle-secs", "0", "--wait")
	check(cli.OK, []string{"ROLLOUT", "GROUP", "site one", "paused"}, "rollout", "list", "--group", "site one", "--active")
	list, err := m.client().AllRollouts(t.Context(), api.RolloutQuery{})
	if err != nil {
		t.Fatal(err)
	}
	id := list[0].ID
	check(cli.OK, []string{id, "rollout of site one to 1.1.0: paused"}, "rollout", "show", id[:6])
	check(cli.Refused, []string{"has changed since you saw it", "Look at it again"}, "rollout", "retry", id, "--revision", "another")
	check(cli.OK, []string{"deciding on the rollout of site one to 1.1.0: paused, wave ", " failed (upgrade_checksum_mismatch)", "rollout of site one to 1.1.0: completed, wave 3 of 3: 3 updated"}, "rollout", "retry", id[:6], "--wait")
	check(cli.OK, []string{"No rollouts match."}, "rollout", "list", "--active")
	check(cli.Misuse, []string{"at least its first 4 characters"}, "rollout", "show", id[:3])
	check(cli.Failed, []string{"there is no rollout"}, "rollout", "show", "zzzz")
	check(cli.Failed, []string{`there is no group "nowhere"; there are: site one`}, "rollout", "start", "nowhere", "1.2.0")
	check(cli.TimedOut, []string{"has not ended within 500ms; it continues"}, "rollout", "start", "site one", "1.2.0", "--wait", "--timeout", "500ms")
	check(cli.Refused, []string{"the manager refuses the rollout: "}, "rollout", "start", "site one", "1.3.0")
	check(cli.OK, []string{"aborted"}, "rollout", "abort", "site one")
	check(cli.Refused, nil, "rollout", "resume", "site one", "--wait")
}

// A command that cannot connect does not wait for its time limit.
func TestWaitFailsAtOnceWithoutAManager(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := dataDir(t, "https://"+l.Addr().String())
	l.Close()
	if _, errs, code := runIn(t, dir, "upgrade", "1e8821f6", "1.1.0", "--wait", "--timeout", "0s"); code != cli.Unreachable {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// An upgrade to the running version ends at once, even if the node has not answered yet.
func TestUpgradeToTheRunningVersion(t *testing.T) {
	t.Parallel()
	const id = "1e8821f6-0acc-4a65-a661-589910968e57"
	mux := http.NewServeMux()
	for path, text := range map[string]string{
		"GET /api/v1/nodes":               `{"nodes":[{"id":"` + id + `"}]}`,
		"GET /api/v1/nodes/{id}":          `{"id":"` + id + `","online":true,"version":"1.1.0","command_id":"c1","upgrade_state":"updated"}`,
		"POST /api/v1/nodes/{id}/upgrade": `{"command_id":"c1"}`,
		"GET /api/v1/nodes/{id}/commands": `{"commands":[{"command_id":"c1"}]}`,
		"GET /api/v1/events":              `{"events":[]}`,
		"GET /api/v1/events/stream":       ": listening\n\n",
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) })
	}
	s := httptest.NewUnstartedServer(mux)
	dir, cert := dataDir(t, "https://"+s.Listener.Addr().String())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	s.StartTLS()
	t.Cleanup(s.Close)
	if out, errs, code := runIn(t, dir, "upgrade", id, "1.1.0", "--wait"); code != cli.OK || out != "command c1\nnode "+id+" already runs 1.1.0\n" {
		t.Errorf("%d %q %s", code, out, errs)
	}
}
