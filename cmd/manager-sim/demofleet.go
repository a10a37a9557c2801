package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

const (
	demoGroup     = "demo" // its name, and the device type of its nodes
	demoFile      = "demo-fleet.json"
	maxDemoNodes  = 10_000
	demoStep      = 2 * time.Second
	demoSlow      = 5
	usualFaults   = "refused=1,rolled-back=1,slow=1,offline=1,degraded=1"
	faultRefused  = "refused"
	faultRollback = "rolled-back"
	faultSlow     = "slow"
	faultOffline  = "offline"
	faultDegraded = "degraded"
)

// demoFaults are the faults of --demo-faults, in the order in which nodes get them.
var demoFaults = [][2]string{
	{faultRefused, "refuses each version once, then accepts it"},
	{faultRollback, "rolls back each version once, then keeps it"},
	{faultSlow, "needs five times as long for an upgrade"},
	{faultOffline, "is offline for half a minute after each half minute"},
	{faultDegraded, "reports degraded health"},
}

func faultHelp() string {
	var b strings.Builder
	for _, f := range demoFaults {
		fmt.Fprintf(&b, "  %-12s %s\n", f[0], f[1])
	}
	return b.String()
}

// demoVersions are the versions that are listed for the demo fleet.
var demoVersions = []string{"2.0.0", "1.2.0", "1.1.0", "1.0.1", "1.0.0"}

// demoFleet runs the simulated nodes of `serve`.
type demoFleet struct {
	nodes  int
	spec   string        // value of --demo-faults
	faults []string      // by node; the other nodes have none
	step   time.Duration // of fleet.Config; 0: demoStep

	mu      sync.Mutex
	saved   []fleet.Saved   // by node
	failed  map[string]bool // by node and version: a node fails once with each version
	changed chan struct{}   // signals that saved has changed
}

// check checks the flags and sets faults. A small fleet gets only as many of the usual
// faults as it has nodes.
func (d *demoFleet) check(withFaults bool) error {
	if d.nodes < 0 || d.nodes > maxDemoNodes {
		return fmt.Errorf("--demo-fleet %d is not 0 to %d", d.nodes, maxDemoNodes)
	}
	if !withFaults {
		return nil
	}
	if d.nodes == 0 {
		return errors.New("--demo-faults needs --demo-fleet")
	}
	count := map[string]int{}
	for _, part := range strings.Split(d.spec, ",") {
		kind, number, ok := strings.Cut(part, "=")
		n, err := strconv.Atoi(number)
		known := slices.ContainsFunc(demoFaults, func(f [2]string) bool { return f[0] == kind })
		if _, twice := count[kind]; !ok || err != nil || n < 0 || !known || twice {
			return fmt.Errorf("--demo-faults: %q is not KIND=NUMBER; the kinds are, each once:\n%s", part, strings.TrimRight(faultHelp(), "\n"))
		}
		count[kind] = min(n, maxDemoNodes+1)
	}
	for _, f := range demoFaults {
		for range count[f[0]] {
			d.faults = append(d.faults, f[0])
		}
	}
	if len(d.faults) > d.nodes {
		if d.spec != usualFaults {
			return fmt.Errorf("--demo-faults: %d faults are too many for --demo-fleet %d: a node has at most one fault", len(d.faults), d.nodes)
		}
		d.faults = d.faults[:d.nodes]
	}
	return nil
}

// String describes the faults of the fleet.
func (d *demoFleet) String() string {
	if len(d.faults) == 0 {
		return "all without faults"
	}
	var parts []string
	for _, f := range demoFaults {
		n := 0
		for _, fault := range d.faults {
			if fault == f[0] {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, f[0]))
		}
	}
	return "with faults: " + strings.Join(parts, ", ")
}

func (d *demoFleet) fault(node int) string {
	if node < len(d.faults) {
		return d.faults[node]
	}
	return ""
}

// outcome returns the outcome of an upgrade. A node with a fault fails once with each
// version.
func (d *demoFleet) outcome(node int, version string) fleet.Outcome {
	outcome := map[string]fleet.Outcome{faultRefused: fleet.Refused, faultRollback: fleet.RollsBack}[d.fault(node)]
	if outcome == fleet.Completes {
		return outcome
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := strconv.Itoa(node) + " " + version
	if d.failed[key] {
		return fleet.Completes
	}
	d.failed[key] = true
	return outcome
}

func (d *demoFleet) traits(node int) fleet.Traits {
	f := d.fault(node)
	t := fleet.Traits{Offline: f == faultOffline, Degraded: f == faultDegraded}
	if f == faultSlow {
		t.Slow = demoSlow
	}
	return t
}

// releases returns the releases that are listed for the fleet. They have no files.
func (d *demoFleet) releases(deviceType, channel string) []api.Release {
	if d.nodes == 0 || deviceType != demoGroup || channel != "" && channel != release.DefaultChannel {
		return nil
	}
	var list []api.Release
	for i, v := range demoVersions {
		list = append(list, api.Release{Version: v, Channel: release.DefaultChannel, DeviceType: demoGroup,
			Sequence: uint64(len(demoVersions) - i), ReleasedAt: time.Date(2026, 1, 1+len(demoVersions)-i, 0, 0, 0, 0, time.UTC)})
	}
	return list
}

// start starts the nodes, with the credentials that an earlier process saved. It removes
// the other nodes of earlier fleets.
func (d *demoFleet) start(ctx context.Context, g *errgroup.Group, st *store.Store, dir, managerURL, token string, cert selfsign.Cert) error {
	group, err := demoGroupOf(ctx, st)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, demoFile)
	if err := d.load(ctx, st, path); err != nil {
		return err
	}
	c := &client{dir: dir, url: managerURL}
	if err := c.connect(); err != nil {
		return err
	}
	if err := d.removeOthers(ctx, st, c); err != nil {
		return err
	}
	d.failed, d.changed = map[string]bool{}, make(chan struct{}, 1)
	saved := slices.Clone(d.saved)
	d.saved = append(d.saved, make([]fleet.Saved, d.nodes-len(saved))...)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert.PEM)
	running, stopped := context.WithCancel(context.WithoutCancel(ctx))
	f, err := fleet.Start(ctx, fleet.Config{
		URL: "wss" + strings.TrimPrefix(managerURL, "https") + wire.Path, Token: token, TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		Nodes: d.nodes, Step: cmp.Or(d.step, demoStep), DeviceType: demoGroup, Outcome: d.outcome, Traits: d.traits, Saved: saved, Save: d.save,
	})
	if err != nil {
		stopped()
		return err
	}
	g.Go(func() error { defer stopped(); f.Wait(); return nil })
	g.Go(func() error { return d.write(running, ctx, st, group, path) })
	return nil
}

// save sets the state of a node, which write then writes.
func (d *demoFleet) save(node int, s fleet.Saved) {
	d.mu.Lock()
	d.saved[node] = s
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// write writes the states of the nodes to a file, and adds new nodes to the group. It
// ends after running, when the nodes have stopped.
func (d *demoFleet) write(running, ctx context.Context, st *store.Store, group, path string) error {
	grouped := map[string]bool{}
	for last := false; !last; {
		select {
		case <-d.changed:
		case <-running.Done():
			last = true
		}
		d.mu.Lock()
		saved := slices.Clone(d.saved)
		d.mu.Unlock()
		b, err := json.Marshal(map[string]any{"nodes": saved})
		if err != nil {
			return err
		}
		if err := writeFileAtomically(path, append(b, '\n'), 0o600); err != nil {
			return fmt.Errorf("demo fleet: %w", err)
		}
		for _, k := range saved {
			if k.ID == "" || grouped[k.ID] || ctx.Err() != nil {
				continue
			}
			if err := joinGroup(ctx, st, k.ID, group); err != nil && ctx.Err() == nil {
				return fmt.Errorf("demo fleet: %w", err)
			}
			grouped[k.ID] = true
		}
	}
	return nil
}

// joinGroup adds a node to a group, unless it is in one.
func joinGroup(ctx context.Context, st *store.Store, id, group string) error {
	n, err := st.Node(ctx, id)
	if err != nil || n.GroupID != "" {
		return err
	}
	details := []byte(`{"group_id":"` + group + `"}`)
	return st.SetGroup(ctx, id, group, api.AuditEntry{Time: time.Now().UTC(), Actor: "demo", Action: "node.group.set", Target: id, Details: details})
}

// demoGroupOf returns the id of the fleet's group, and creates the group if it is
// missing.
func demoGroupOf(ctx context.Context, st *store.Store) (string, error) {
	now := time.Now().UTC()
	group := api.Group{ID: uuid.NewString(), Name: demoGroup, CreatedAt: now}
	entry := api.AuditEntry{Time: now, Actor: "demo", Action: "group.create", Target: group.ID, Details: []byte(`{"name":"` + demoGroup + `"}`)}
	err := st.AddGroup(ctx, group, entry)
	if !errors.Is(err, store.ErrExists) {
		return group.ID, err
	}
	all, err := st.Groups(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(g api.Group) bool { return g.Name == demoGroup })
	if i < 0 {
		return "", fmt.Errorf("the group %q was removed meanwhile", demoGroup)
	}
	return all[i].ID, nil
}

// load reads the states of an earlier fleet's nodes, if the manager knows them.
func (d *demoFleet) load(ctx context.Context, st *store.Store, path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var file struct {
		Nodes []fleet.Saved `json:"nodes"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return fmt.Errorf("%s: %w; remove the file to create new nodes", path, err)
	}
	for _, k := range file.Nodes {
		if len(d.saved) == d.nodes {
			return nil
		}
		switch n, err := st.Node(ctx, k.ID); {
		case err == nil && !n.RemovedAt.IsZero(): // an operator removed it
		case err == nil:
			d.saved = append(d.saved, k)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
	}
	return nil
}

// removeOthers removes the nodes of earlier fleets that this one does not run.
func (d *demoFleet) removeOthers(ctx context.Context, st *store.Store, c *client) error {
	all, err := st.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.DeviceType != demoGroup || !n.RemovedAt.IsZero() || slices.ContainsFunc(d.saved, func(k fleet.Saved) bool { return k.ID == n.ID }) {
			continue
		}
		err := c.RemoveNode(ctx, n.ID, "left by an earlier demo fleet")
		p, _ := errors.AsType[*api.Problem](err)
		if err != nil && (p == nil || p.Status != http.StatusNotFound && p.Status != http.StatusMethodNotAllowed) {
			return fmt.Errorf("demo fleet: remove node %s: %w", n.ID, err)
		}
	}
	return nil
}
