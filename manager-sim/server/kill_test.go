package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// mortalEnv makes this test binary a manager that kills itself: it names its
// directory and its address.
const mortalEnv = "EDGE_AGENT_TEST_MORTAL_MANAGER"

func TestMain(m *testing.M) {
	if dir, addr, ok := strings.Cut(os.Getenv(mortalEnv), " "); ok {
		fmt.Fprintln(os.Stderr, mortal(dir, addr))
		os.Exit(1)
	}
	box.AtOnce(3 * runtime.GOMAXPROCS(0)) // many wait for a tick of the engine
	os.Exit(m.Run())
}

// mortalStore kills the process once before each transition of a rollout is stored,
// and once after.
type mortalStore struct {
	*store.Store
	dir string
}

func (s mortalStore) SaveRollout(ctx context.Context, r store.Rollout, commands []store.Command, audits []api.AuditEntry) error {
	mark := filepath.Join(s.dir, fmt.Sprintf("died-before-%d", r.Revision))
	if f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL, 0o644); err == nil {
		f.Close()
		die()
	}
	err := s.Store.SaveRollout(ctx, r, commands, audits)
	if err == nil {
		die()
	}
	return err
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func mortal(dir, addr string) error {
	st, err := store.Open(context.Background(), filepath.Join(dir, "db"))
	if err != nil {
		return err
	}
	if err := st.AddToken(context.Background(), secret.Hash(registration)); err != nil {
		return err
	}
	s, err := server.New(server.Config{Store: st, Rollouts: mortalStore{st, dir}, AdminToken: admin, Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return http.Serve(l, s)
}

// The manager is killed before and after every transition of a staged rollout
// over 50 nodes; the rollout ends as if nothing had happened.
func TestRolloutSurvivesKills(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("some hundred processes")
	}
	const nodes = 50
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()

	// The manager, again and again.
	deaths := 0
	supervised := make(chan error, 1)
	supervisor, stop := context.WithCancel(ctx)
	go func() {
		for supervisor.Err() == nil {
			cmd := exec.CommandContext(supervisor, os.Args[0])
			cmd.Env = append(os.Environ(), mortalEnv+"="+dir+" "+addr)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if supervisor.Err() == nil && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
				supervised <- fmt.Errorf("the manager ended by itself: %v\n%s", err, out)
				return
			}
			deaths++
		}
		supervised <- nil
	}()

	f, err := fleet.Start(supervisor, fleet.Config{URL: "ws://" + addr + wire.Path, Token: registration, Nodes: nodes, Step: 400 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	// call is repeated until it is answered.
	call := func(method, path, body string, to any) int {
		t.Helper()
		for {
			req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+admin)
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err == nil {
					if to != nil {
						if err := json.Unmarshal(b, to); err != nil {
							t.Fatalf("%s: %v", b, err)
						}
					}
					return resp.StatusCode
				}
			}
			select {
			case <-ctx.Done():
				t.Fatal("it took too long")
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	var list struct {
		Nodes []struct {
			ID           string
			Version      string
			Capabilities []string
		}
	}
	for len(list.Nodes) < nodes || slices.ContainsFunc(list.Nodes, func(n struct {
		ID           string
		Version      string
		Capabilities []string
	}) bool {
		return len(n.Capabilities) == 0
	}) {
		call("GET", "/api/v1/nodes", "", &list)
	}
	var g struct{ ID string }
	call("POST", "/api/v1/groups", `{"name":"all"}`, &g)
	for _, n := range list.Nodes {
		call("PUT", "/api/v1/nodes/"+n.ID+"/group", `{"group_id":"`+g.ID+`"}`, nil)
	}
	call("POST", "/api/v1/groups/"+g.ID+"/upgrade", `{"version":"1.1.0","settle_secs":1}`, nil) // it dies twice in this; the second answer is a conflict
	var rs struct {
		Rollouts []rolloutOf
	}
	for len(rs.Rollouts) != 1 || rs.Rollouts[0].Status != "completed" {
		call("GET", "/api/v1/rollouts", "", &rs)
		if len(rs.Rollouts) > 1 || len(rs.Rollouts) == 1 && rs.Rollouts[0].Status == "paused" {
			t.Fatalf("%+v", rs.Rollouts)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if k := rs.Rollouts[0].Counts["updated"]; k != nodes {
		t.Errorf("%d nodes are updated: %v", k, rs.Rollouts[0].Counts)
	}
	call("GET", "/api/v1/nodes", "", &list)
	for _, n := range list.Nodes {
		if n.Version != "1.1.0" {
			t.Errorf("a node runs %s", n.Version)
		}
	}
	for i, k := range f.UpgradesStarted() {
		if k != 1 {
			t.Errorf("node %d was upgraded %d times", i, k)
		}
	}
	var log struct{ Entries []struct{ Action string } }
	call("GET", "/api/v1/audit-log", "", &log)
	count := map[string]int{}
	for _, e := range log.Entries {
		count[e.Action]++
	}
	if count["group.upgrade.schedule"] != 1 || count["group.upgrade.complete"] != 1 || count["group.upgrade.paused"] != 0 || count["group.create"] != 1 {
		t.Errorf("audit: %v", count)
	}
	stop()
	if err := <-supervised; err != nil {
		t.Error(err)
	}
	f.Wait()
	// Before each transition and after it; the last death may be the supervisor's.
	revision := rs.Rollouts[0].Revision
	t.Logf("the manager was killed %d times, at %d transitions", deaths, revision)
	if deaths < 2*revision-1 || revision < 10 {
		t.Error("that is not at every transition")
	}
}
