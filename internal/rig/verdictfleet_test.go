package rig_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/line"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

const (
	fleetNodes = 200 // the first wave: a tenth of the group
	fleetGroup = 10 * fleetNodes
	fleetNext  = 20 // nodes of the second wave that are online, simulated
	// fleetWindowSecs is longer than in the other rows: in each quarter of a window each node
	// starts a child. The outage has three windows.
	fleetWindowSecs = 600
	outage          = 30 * time.Minute / faster
)

// manyAgents builds the program that runs a fleet's agents, once.
var manyAgents = sync.OnceValues(func() (string, error) {
	if _, err := programs(); err != nil { // makes buildDir
		return "", err
	}
	bin, err := rig.BuildCommand(context.Background(), "internal/rig/manyagents", buildDir, "1.0.0")
	return bin["1.0.0"], err
})

// A manager with a whole fleet on trial is killed. The two fleets run alone: they need both
// processors.
func TestVerdictsOfAFleet(t *testing.T) {
	box.Long(t)
	builds(t)
	ok := t.Run("killed for half an hour", func(t *testing.T) { newFleet(t, "").outage(kept) })
	ok = t.Run("killed for half an hour, and a bad link", func(t *testing.T) { newFleet(t, strings.Repeat("00", 32)).outage(rolledBack) }) && ok
	if ok {
		fmt.Println("verdicts of a fleet: 2 cases, 0 wrong")
	}
}

// agents are the nodes of a fleet, in one process.
type agents struct {
	*bench
	line    *line.Line
	cert    tls.Certificate // of the manager
	layouts []state.Layout
	rollout string
	next    *fleet.Fleet // of the second wave
}

// newFleet returns a fleet that runs 1.0.0. pin is that of 1.1.0; "": it is a good version.
func newFleet(t *testing.T, pin string) *agents {
	t.Helper()
	ctx := patience(t)
	f := &agents{bench: &bench{Rig: newRig(t), t: t, ctx: ctx, bin: builds(t)}}
	f.declares()
	program, err := manyAgents()
	if err != nil {
		t.Fatal(err)
	}
	manager, err := url.Parse(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	if f.line, err = line.New(manager.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.line.Close)
	cert, err := selfsign.Ensure(filepath.Join(f.Dir, "tls"))
	if err != nil {
		t.Fatal(err)
	}
	f.cert = cert.TLS
	dir := t.TempDir()
	for _, v := range []string{"1.0.0", "1.1.0"} { // each node has a script, and not 20 MB
		script := filepath.Join(dir, v)
		text := fmt.Sprintf("#!/bin/sh\ncase $1 in version) echo edge-agent %s+sim; exit ;; config) exit ;; esac\nexec %s \"$@\"\n", v, f.bin[v])
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		o := f.releases
		o.Version, o.Binary = v, script
		if _, err := f.Publish(o); err != nil {
			t.Fatal(err)
		}
	}
	// Until all are on trial the manager is there for 1.0.0 alone.
	if err := f.line.Set(line.Answers(f.cert, line.Sessions(f.line, func(auth *wire.Auth, _ *websocket.Conn) bool {
		return auth.SoftwareVersion == "1.0.0" && !auth.Probe
	}))); err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(dir, "roots")
	_, token, fingerprint := f.Registration()
	for i, node := range f.begin(token) {
		root := filepath.Join(roots, strconv.Itoa(i))
		c := rig.NodeConfig{Name: strconv.Itoa(i), Version: "1.0.0", Binary: filepath.Join(dir, "1.0.0"), Commands: f.releases.Commands, WindowSecs: fleetWindowSecs, HoldSecs: holdSecs,
			URLs: []string{"wss://" + f.line.Addr()}, Fingerprint: fingerprint}
		l, err := state.At(root)
		credentials := fmt.Appendf(nil, `{"node_id":%q,"node_secret":%q}`, node.ID, node.Secret)
		if err := errors.Join(err, rig.LayOut(ctx, root, root, c), os.WriteFile(l.CredentialsFile(), credentials, 0o600)); err != nil {
			t.Fatal(err)
		}
		f.layouts = append(f.layouts, l)
	}
	args := []string{roots}
	if pin != "" {
		args = append(args, pin)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("EDGE_AGENT_SIM_FASTER=%d", faster), "EDGE_AGENT_SIM_LIMIT=10s", "EDGE_AGENT_SIM_TRUST="+f.TrustDir())
	journal, err := os.Create(filepath.Join(dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = journal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := errors.Join(cmd.Wait(), journal.Close()); err != nil || t.Failed() {
			out, _ := exec.Command("tail", "-n", "100", journal.Name()).Output()
			t.Errorf("the fleet: %v\n%s", err, out)
		}
	})
	return f
}

// begin registers a group of nodes, and begins its rollout while they are offline. It returns
// the nodes of the first wave, and starts some of the second.
func (f *agents) begin(token string) (first []fleet.Saved) {
	t := f.t
	t.Helper()
	c := fleet.Config{URL: "wss" + strings.TrimPrefix(f.URL, "https") + wire.Path, Token: token, TLS: f.ClientTLS(), Nodes: fleetGroup}
	var mu sync.Mutex
	saved := make(map[string]fleet.Saved)
	c.Save = func(_ int, s fleet.Saved) {
		mu.Lock()
		defer mu.Unlock()
		saved[s.ID] = s
	}
	ctx, cancel := context.WithCancel(f.ctx)
	all, err := fleet.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []api.Node
	f.count(fleetGroup, "registered", func() (n int) {
		nodes, _ = f.Client.AllNodes(f.ctx, api.NodeQuery{})
		for _, node := range nodes {
			if len(node.Capabilities) > 0 {
				n++
			}
		}
		return n
	})
	cancel()
	all.Wait()
	group, err := f.Client.CreateGroup(f.ctx, "all")
	for _, n := range nodes {
		err = errors.Join(err, f.Client.SetGroup(f.ctx, n.ID, group.ID))
	}
	if err != nil {
		t.Fatal(err)
	}
	settle := 1
	plan, err := f.Client.UpgradeGroup(f.ctx, group.ID, api.RolloutRequest{Version: "1.1.0", SettleSecs: &settle, Threshold: fleetNodes})
	if err != nil || len(plan.Waves) < 2 || len(plan.Waves[0]) != fleetNodes {
		t.Fatalf("%+v, %v", plan, err)
	}
	f.rollout = plan.RolloutID
	for _, id := range plan.Waves[0] {
		first = append(first, saved[id])
	}
	c.Nodes, c.Token, c.Save = fleetNext, "", nil
	for _, id := range plan.Waves[1][:fleetNext] {
		c.Saved = append(c.Saved, saved[id])
	}
	ctx, cancel = context.WithCancel(f.ctx)
	if f.next, err = fleet.Start(ctx, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); f.next.Wait() })
	return first
}

// until waits until all agents are as is says.
func (f *agents) until(what string, count func() int) {
	f.t.Helper()
	f.count(fleetNodes, what, count)
}

// count waits until that many nodes are what count counts.
func (f *agents) count(want int, what string, count func() int) {
	f.t.Helper()
	began := time.Now()
	for tick := time.Tick(200 * time.Millisecond); ; <-tick {
		n := count()
		if n >= want {
			f.t.Logf("%d nodes %s after %.1f s", n, what, time.Since(began).Seconds())
			return
		}
		if f.ctx.Err() != nil {
			f.t.Fatalf("%d of %d nodes %s: %v", n, want, what, context.Cause(f.ctx))
		}
	}
}

// on counts the nodes whose links point to these versions.
func (f *agents) on(current, lastGood string) (n int) {
	for _, l := range f.layouts {
		if tree, err := l.Tree(); err == nil && tree.Current.String() == current && tree.LastGood.String() == lastGood {
			n++
		}
	}
	return n
}

// outage puts all nodes on trial at once, with the manager killed meanwhile.
func (f *agents) outage(end ending) {
	t := f.t
	t.Helper()
	polls := 0
	f.until("on trial", func() int {
		// On a machine that is too busy a check of the release may not end in time.
		if polls++; polls%25 > 0 {
			return f.on("1.1.0", "1.0.0")
		}
		if r, err := f.Client.Rollout(f.ctx, f.rollout); err == nil && slices.ContainsFunc(r.Nodes, func(n api.RolloutNode) bool { return n.State == "failed" }) {
			f.Client.ActOnRollout(f.ctx, f.rollout, api.ActRetry, api.RolloutAct{Revision: r.Decision})
		}
		return f.on("1.1.0", "1.0.0")
	})
	started := f.told("upgrade_started")
	f.Manager.Close()
	if err := f.line.Set(line.Refused); err != nil {
		t.Fatal(err)
	}
	select {
	case <-time.After(outage): // its length is what the row is about
	case <-f.ctx.Done():
	}
	if n := f.on("1.1.0", "1.0.0"); n != fleetNodes {
		t.Errorf("%d of %d nodes run 1.1.0 after the outage", n, fleetNodes)
	}
	if err := errors.Join(f.RestartManager(), f.line.Set(line.Sound)); err != nil {
		t.Fatal(err)
	}
	current := map[ending]string{kept: "1.1.0", rolledBack: "1.0.0"}[end]
	f.until(string(end), func() int { return f.on(current, current) })
	code := map[ending]string{kept: string(release.Completed), rolledBack: string(release.RolledBack)}[end]
	f.until("with "+code, func() int { return len(f.told(code)) })
	for _, other := range []string{string(release.Completed), string(release.RolledBack)} {
		if told := f.told(other); other != code && len(told) > 0 {
			t.Errorf("%d nodes report %s", len(told), other)
		}
	}
	second := func() (n int) {
		for _, started := range f.next.UpgradesStarted() {
			n += started
		}
		return n
	}
	if end == kept {
		f.count(fleetNext, "in the second wave", second)
		return
	}
	r, err := f.Client.Rollout(f.ctx, f.rollout)
	for tick := time.Tick(100 * time.Millisecond); err == nil && r.Status == "running" && r.Wave == 0 && f.ctx.Err() == nil; <-tick {
		r, err = f.Client.Rollout(f.ctx, f.rollout) // the manager looks at it from time to time
	}
	if err != nil || r.Status != "paused" || r.Wave != 0 {
		t.Errorf("the rollout is %s in wave %d (%v), want paused in the first", r.Status, r.Wave+1, err)
	}
	if again := f.told("upgrade_started"); !maps.Equal(started, again) || second() > 0 {
		t.Errorf("nodes were upgraded again: %v, and %v before; %d of the second wave", again, started, second())
	}
}

// told returns how many events with a code each node sent.
func (f *agents) told(code string) map[string]int {
	n := make(map[string]int)
	q := api.EventQuery{PerPage: api.MaxEventsPerPage, Search: code}
	for {
		page, err := f.Client.Events(f.ctx, q)
		if err != nil {
			return n
		}
		for _, e := range page.Events {
			if e.ErrorCode == code {
				n[e.NodeID]++
			}
		}
		if page.Next == "" {
			return n
		}
		q.After = page.Next
	}
}
