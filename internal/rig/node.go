package rig

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"text/template"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/supervise"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
)

// NodeConfig describes a node. The zero value of a field means the default in its
// comment.
type NodeConfig struct {
	Name            string        // "node"; also its directory
	Version         string        // installed first
	Binary          string        // the program of that version, or a directory with all its files
	BinaryName      string        // its name in the version's directory: "edge-agent"
	Tool            string        // an edge-agent, for its unit and status commands: Binary
	MaxBootAttempts int           // 3
	WindowSecs      int           // boot_health_window_secs: 10, the minimum
	HoldSecs        int           // health_hold_secs: 0
	Restart         time.Duration // 50 ms
	TimeoutStart    time.Duration // the window
	ManagerURL      string        // the rig's
	Token           string        // registration token: the rig's
	URLs            []string      // of the manager: ManagerURL
	Fingerprint     string        // of the manager's certificate: the rig's
	CAFile          string        // verifies the manager in place of Fingerprint
	Commands        []string      // that the release of Version declares
	Disabled        bool          // disables upgrades
	Proxy           string        // manager.proxy; "" leaves it to the environment
	Unit            string        // service.unit, in a box: Binary then links nothing, and Tool is its agent
	Probe           []string      // health.command
	Env             []string      // of its processes, besides this process's
	Wrap            []string      // a command that executes the service
	UnitFlags       []string      // further flags of the command that writes the unit of a box
	// OnChange is called for each change of the service, before it goes on.
	OnChange func(supervise.Event)
}

// Node is a device: an install root and a service under a supervisor.
type Node struct {
	Name, Root, Journal string // Journal is the file with the output of its processes

	rig    *Rig
	layout state.Layout // of Root
	unit   supervise.Unit
	stop   context.CancelFunc
	wg     sync.WaitGroup
	out    *os.File
}

var nodeConfig = template.Must(template.New("config.toml").Parse(`[service]
name = {{.Name | printf "%q"}}
device_type = "edge"
install_root = {{.Root | printf "%q"}}
binary = {{.Binary | printf "%q"}}
{{with .Unit}}unit = {{. | printf "%q"}}
{{end}}
[manager]
urls = [{{range $i, $url := .URLs}}{{if $i}}, {{end}}{{$url | printf "%q"}}{{end}}]
registration_token = {{.Token | printf "%q"}}
{{with .CAFile}}ca_file = {{. | printf "%q"}}{{else}}cert_fingerprint = {{.Fingerprint | printf "%q"}}{{end}}
{{with .Proxy}}proxy = {{. | printf "%q"}}
{{end}}
[upgrade]
enabled = {{.Enabled}}
boot_health_window_secs = {{.Window}}
max_boot_attempts = {{.Attempts}}
health_hold_secs = {{.Hold}}
drain_secs = 5
{{with .Probe}}
[health]
command = [{{range .}}{{. | printf "%q"}}, {{end}}]
{{end}}`))

// defaults sets the zero fields of c.
func (c *NodeConfig) defaults(r *Rig) {
	if c.Name == "" {
		c.Name = "node"
	}
	if c.BinaryName == "" {
		c.BinaryName = "edge-agent"
	}
	if c.Tool == "" {
		c.Tool = c.Binary
	}
	if c.MaxBootAttempts == 0 {
		c.MaxBootAttempts = 3
	}
	if c.WindowSecs == 0 {
		c.WindowSecs = 10
	}
	if c.Restart == 0 {
		c.Restart = 50 * time.Millisecond
	}
	if c.TimeoutStart == 0 {
		c.TimeoutStart = time.Duration(c.WindowSecs) * time.Second
	}
	if r != nil {
		url, token, fingerprint := r.Registration()
		c.ManagerURL, c.Token, c.Fingerprint = cmp.Or(c.ManagerURL, url), cmp.Or(c.Token, token), cmp.Or(c.Fingerprint, fingerprint)
	}
	if c.URLs == nil && c.ManagerURL != "" {
		c.URLs = []string{c.ManagerURL}
	}
}

// LayOut creates an install root in dir, which must be new or empty, as an install by
// hand does: the version, the links, the configuration. root is the path of dir on the
// node. c must have a manager, a token and a fingerprint.
func LayOut(ctx context.Context, dir, root string, c NodeConfig) error {
	c.defaults(nil)
	l, err := state.At(dir)
	if err != nil {
		return err
	}
	v, err := release.ParseVersion(c.Version)
	if err != nil {
		return err
	}
	version := l.Version(v)
	if err := os.MkdirAll(version, 0o755); err != nil {
		return err
	}
	if st, err := os.Stat(c.Binary); err != nil {
		return err
	} else if st.IsDir() {
		if err := os.CopyFS(version, os.DirFS(c.Binary)); err != nil {
			return err
		}
	} else if err := copyProgram(c.Binary, filepath.Join(version, c.BinaryName)); err != nil {
		return err
	}
	if err := writeMarker(version, v, c); err != nil {
		return err
	}
	if _, err := l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		t.LastGood, t.Current = v, v
		return state.Install(s, state.Trial{Target: v}, now), t, nil
	}); err != nil {
		return err
	}
	return WriteConfig(l.ConfigFile(), root, c)
}

// writeMarker writes what staging keeps of a release that declares commands.
func writeMarker(dir string, v release.Version, c NodeConfig) error {
	if c.Commands == nil {
		return nil
	}
	b, err := json.Marshal(map[string]any{"version": v, "commands": c.Commands, "program": c.BinaryName})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, state.ReleaseFile), b, 0o644)
}

// WriteConfig writes or replaces the config.toml of LayOut by rename: a reader sees the
// old or the new file.
func WriteConfig(path, root string, c NodeConfig) error {
	c.defaults(nil)
	var conf bytes.Buffer
	if err := nodeConfig.Execute(&conf, map[string]any{
		"Name": c.Name, "Binary": c.BinaryName, "Root": root, "URLs": c.URLs, "Token": c.Token, "Fingerprint": c.Fingerprint, "CAFile": c.CAFile,
		"Enabled": !c.Disabled, "Window": c.WindowSecs, "Attempts": c.MaxBootAttempts, "Hold": c.HoldSecs, "Proxy": c.Proxy, "Unit": c.Unit, "Probe": c.Probe,
	}); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, conf.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Supervised returns the service of the node at l, whose simulation build trusts
// the directory trust. The caller sets Output and OnChange.
func (c NodeConfig) Supervised(l state.Layout, trust string) supervise.Unit {
	c.defaults(nil)
	return supervise.Unit{
		ExecStartPre: []string{filepath.Join(l.LastGood(), c.BinaryName), "watchdog", "--root", l.Root()},
		ExecStart:    append(slices.Clone(c.Wrap), filepath.Join(l.Current(), c.BinaryName), "run", "--config", l.ConfigFile()),
		Env:          append([]string{"EDGE_AGENT_SIM_TRUST=" + trust}, c.Env...),
		Restart:      c.Restart, TimeoutStart: c.TimeoutStart,
	}
}

// Install lays out a node under a supervisor, and does not start it.
func (r *Rig) Install(ctx context.Context, c NodeConfig) (*Node, error) {
	c.defaults(r)
	n := &Node{Name: c.Name, Root: filepath.Join(r.Dir, c.Name), Journal: filepath.Join(r.Dir, c.Name+".journal"), rig: r}
	if err := LayOut(ctx, n.Root, n.Root, c); err != nil {
		return nil, err
	}
	l, err := state.At(n.Root)
	if err != nil {
		return nil, err
	}
	n.layout = l
	if n.out, err = os.OpenFile(n.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return nil, err
	}
	n.unit = c.Supervised(l, r.TrustDir())
	n.unit.Output = n.out
	n.unit.OnChange = func(e supervise.Event) {
		if c.OnChange != nil {
			c.OnChange(e)
		}
		r.Timeline.add(Entry{Record: api.Record{Type: string(e.Kind), Message: e.Text}, At: e.Time, From: FromNode, Node: n.Name, Start: e.Start})
	}
	return n, nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}

// Start starts the service. It can follow Stop.
func (n *Node) Start() {
	ctx, cancel := context.WithCancel(context.Background()) // the service runs until Stop, longer than its caller
	n.stop = cancel
	n.wg.Go(func() {
		if err := supervise.Run(ctx, n.unit); err != nil {
			fmt.Fprintln(n.out, err)
		}
	})
}

// Stop stops the service, as systemctl stop does, and waits for its end.
func (n *Node) Stop() {
	if n.stop != nil {
		n.stop()
		n.wg.Wait()
		n.stop = nil
	}
}

// ID returns the node's id at the manager; an error before it has registered.
func (n *Node) ID() (string, error) { return NodeID(n.layout) }
