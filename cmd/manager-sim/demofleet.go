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
	faultBack     = "rolled-back"
	faultSlow     = "slow"
	faultOffline  = "offline"
	faultDegraded = "degraded"
)

// demoFaults are the faults of --demo-faults, in the order in which the nodes
// get them.
var demoFaults = [][2]string{
	{faultRefused, "refuses each version once, then accepts it"},
	{faultBack, "rolls each version back once, then keeps it"},
	{faultSlow, "takes five times as long for an upgrade"},
	{faultOffline, "is offline for half a minute after each half minute"},
	{faultDegraded, "reports that its health is degraded"},
}

func faultHelp() string {
	var b strings.Builder
	for _, f := range demoFaults {
		fmt.Fprintf(&b, "  %-12s %s\n", f[0], f[1])
	}
	return b.String()
}

// demoVersions are what the nodes of the demo fleet can be upgraded to.
var demoVersions = []string{"2.0.0", "1.2.0", "1.1.0", "1.0.1", "1.0.0"}

// demoFleet is the simulated nodes of `serve`.
type demoFleet struct {
	nodes  int
	spec   string        // of --demo-faults
	faults []string      // by node; those after its end have none
	step   time.Duration // of fleet.Config; 0: demoStep

	mu    sync.Mutex
	kept  []fleet.Kept    // by node
	tried map[string]bool // node and version: a node fails once with each
	dirty chan struct{}   // kept has changed
}

// check reads the faults. Of the usual ones a small fleet gets as many as it has
// nodes.
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
			return fmt.Errorf("--demo-faults: %d faults are too many for --demo-fleet %d: a node has one fault at most", len(d.faults), d.nodes)
		}
		d.faults = d.faults[:d.nodes]
	}
	return nil
}

// String says which faults the fleet has.
func (d *demoFleet) String() string {
	if len(d.faults) == 0 {
		return "all of them well"
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

// fate decides an upgrade: a node that fails does so once with each version.
func (d *demoFleet) fate(node int, version string) fleet.Fate {
	fate := map[string]fleet.Fate{faultRefused: fleet.Refused, faultBack: fleet.GoesBack}[d.fault(node)]
	if fate == fleet.Good {
		return fate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := strconv.Itoa(node) + " " + version
	if d.tried[key] {
		return fleet.Good
	}
	d.tried[key] = true
	return fate
}

func (d *demoFleet) traits(node int) fleet.Traits {
	f := d.fault(node)
	t := fleet.Traits{Away: f == faultOffline, Degraded: f == faultDegraded}
	if f == faultSlow {
		t.Slow = demoSlow
	}
	return t
}

// releases lists what the nodes of the fleet can be upgraded to. Nothing is
// fetched.
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

// start starts the nodes, with the credentials that the fleet of an earlier
// process kept. Nodes of an earlier fleet that this one has no use for it removes.
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
	d.tried, d.dirty = map[string]bool{}, make(chan struct{}, 1)
	kept := slices.Clone(d.kept)
	d.kept = append(d.kept, make([]fleet.Kept, d.nodes-len(kept))...)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert.PEM)
	running, stopped := context.WithCancel(context.WithoutCancel(ctx))
	f, err := fleet.Start(ctx, fleet.Config{
		URL: "wss" + strings.TrimPrefix(managerURL, "https") + wire.Path, Token: token, TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		Nodes: d.nodes, Step: cmp.Or(d.step, demoStep), DeviceType: demoGroup, Fate: d.fate, Traits: d.traits, Kept: kept, Changed: d.changed,
	})
	if err != nil {
		stopped()
		return err
	}
	g.Go(func() error { defer stopped(); f.Wait(); return nil })
	g.Go(func() error { return d.keep(running, ctx, st, group, path) })
	return nil
}

// changed takes over what a node must keep; keep writes it.
func (d *demoFleet) changed(node int, k fleet.Kept) {
	d.mu.Lock()
	d.kept[node] = k
	d.mu.Unlock()
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

// keep writes what the nodes keep, and puts each new node into the group, until
// running is done: the nodes have stopped.
func (d *demoFleet) keep(running, ctx context.Context, st *store.Store, group, path string) error {
	grouped := map[string]bool{}
	for last := false; !last; {
		select {
		case <-d.dirty:
		case <-running.Done():
			last = true
		}
		d.mu.Lock()
		kept := slices.Clone(d.kept)
		d.mu.Unlock()
		b, err := json.Marshal(map[string]any{"nodes": kept})
		if err != nil {
			return err
		}
		if err := writeFileAtomically(path, append(b, '\n'), 0o600); err != nil {
			return fmt.Errorf("demo fleet: %w", err)
		}
		for _, k := range kept {
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

// joinGroup puts a node into a group, unless an operator has put it into one.
func joinGroup(ctx context.Context, st *store.Store, id, group string) error {
	n, err := st.Node(ctx, id)
	if err != nil || n.GroupID != "" {
		return err
	}
	details := []byte(`{"group_id":"` + group + `"}`)
	return st.SetGroup(ctx, id, group, api.AuditEntry{Time: time.Now().UTC(), Actor: "demo", Action: "node.group.set", Target: id, Details: details})
}

// demoGroupOf returns the id of the fleet's group, and makes the group first if
// there is none.
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
		return "", fmt.Errorf("the group %q was there, and is not any more", demoGroup)
	}
	return all[i].ID, nil
}

// load reads what an earlier fleet kept, of the nodes that the manager knows.
func (d *demoFleet) load(ctx context.Context, st *store.Store, path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var file struct {
		Nodes []fleet.Kept `json:"nodes"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return fmt.Errorf("%s: %w; remove the file to have new nodes made", path, err)
	}
	for _, k := range file.Nodes {
		if len(d.kept) == d.nodes {
			return nil
		}
		switch n, err := st.Node(ctx, k.ID); {
		case err == nil && !n.RemovedAt.IsZero(): // by an operator
		case err == nil:
			d.kept = append(d.kept, k)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
	}
	return nil
}

// removeOthers removes the nodes of earlier fleets that nothing runs any more.
func (d *demoFleet) removeOthers(ctx context.Context, st *store.Store, c *client) error {
	all, err := st.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.DeviceType != demoGroup || !n.RemovedAt.IsZero() || slices.ContainsFunc(d.kept, func(k fleet.Kept) bool { return k.ID == n.ID }) {
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
