package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/supervise"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

// defaultNode is the name of the node that `node run` runs.
const defaultNode = "my-node"

// registerHint is the time after which `node run` prints a hint if the node has not
// registered.
const registerHint = 10 * time.Second

// localNode is a node of `node run` in the data directory.
type localNode struct{ dir string }

func nodeUnder(dir, name string) localNode {
	return localNode{absolute(filepath.Join(dir, "nodes", name))}
}

func (n localNode) root() string    { return filepath.Join(n.dir, "root") }
func (n localNode) journal() string { return filepath.Join(n.dir, "journal") }

// layout returns the paths of the node's root.
func (n localNode) layout() state.Layout {
	l, _ := state.At(n.root()) // nodeUnder made it absolute
	return l
}

// id returns the node's id at the manager; "" before it has registered.
func (n localNode) id() string {
	id, err := rig.NodeID(n.layout())
	if err != nil {
		return ""
	}
	return id
}

// localNames returns the names of the nodes of `node run` in the data directory, by id.
func localNames(dir string) map[string]string {
	names := map[string]string{}
	entries, _ := os.ReadDir(filepath.Join(dir, "nodes")) // there may be none
	for _, e := range entries {
		if checkNodeName(e.Name()) != nil {
			continue
		}
		if id := nodeUnder(dir, e.Name()).id(); id != "" {
			names[id] = e.Name()
		}
	}
	return names
}

// version returns the version that current points to; "?" if there is none.
func (n localNode) version() string {
	tree, err := n.layout().Tree()
	if err != nil || tree.Current.IsZero() {
		return "?"
	}
	return tree.Current.String()
}

var nodeNames = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// checkNodeName refuses invalid names, and those that could abbreviate a node's id.
func checkNodeName(name string) error {
	if !nodeNames.MatchString(name) || strings.Trim(name, "0123456789abcdef-") == "" {
		return fmt.Errorf("--name %q: use 1 to 32 of a-z, 0-9 and -, beginning with a letter, at least one of them g to z", name)
	}
	return nil
}

func newNodeRunCmd() *cobra.Command {
	r := nodeRun{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a real agent as a node of the manager, until Ctrl-C",
		Long: `Run creates an install root below --dir from a published release, and runs its
program as the systemd unit would: it runs the watchdog before each start, and
restarts the program after each end. The program is a simulation build (go build
-tags sim) of edge-agent, or of a daemon that links the agent. The node registers
with the manager of --dir. A second run continues with the same root.

The other commands accept --name in place of the node's id.`,
		Example: `  manager-sim node run
  manager-sim node run --name second --version 1.0.0
  manager-sim node run --name mine --binary bin/edge-agent
  manager-sim node run --repository acme/player --program player`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkNodeName(r.name); err != nil {
				return cli.Usage(err)
			}
			if err := checkVersion("version", r.version); err != nil {
				return err
			}
			if r.program == "" || r.program != filepath.Base(r.program) || r.program == "." || r.program == ".." {
				return cli.Usage(fmt.Errorf("--program %q: it must be a file name", r.program))
			}
			r.out = &syncWriter{w: cmd.OutOrStdout()}
			if err := r.run(cmd.Context()); err != nil {
				return fmt.Errorf("node run: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.dir, "dir", defaultDir, "data directory of serve")
	f.StringVar(&r.name, "name", defaultNode, "name of the node; its directory is nodes/NAME in --dir")
	f.StringVar(&r.version, "version", "", "published version to start with (default: the oldest)")
	f.StringVar(&r.binary, "binary", "", "simulation build to start with, in place of a published version")
	f.StringVar(&r.program, "program", "edge-agent", "file name of the program in the release")
	f.StringVar(&r.repository, "repository", fakerelease.DefaultRepository, "OWNER/REPO of the release")
	f.StringVar(&r.url, "url", "", "URL of the manager (default: the address of serve)")
	return cmd
}

// nodeRun is one run of `node run`.
type nodeRun struct {
	dir, name, version, binary, program, repository, url string

	out     io.Writer
	node    localNode
	refusal string // the manager's last refusal that was printed
}

func (r *nodeRun) run(ctx context.Context) error {
	c, err := r.config()
	if err != nil {
		return err
	}
	r.node = nodeUnder(r.dir, r.name)
	if err := os.MkdirAll(r.node.dir, 0o755); err != nil {
		return err
	}
	unlock, err := lockFile(filepath.Join(r.node.dir, "lock"))
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("the node %q is running already; set --name for another one", r.name)
	}
	if err != nil {
		return err
	}
	defer unlock()
	if err := r.layOut(ctx, c); err != nil {
		return err
	}
	journal, err := os.OpenFile(r.node.journal(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer journal.Close()
	unit := c.Supervised(r.node.layout(), absolute(fakerelease.TrustDir(releasesUnder(r.dir))))
	unit.Restart, unit.Output, unit.OnChange = time.Second, journal, r.printChange
	fmt.Fprintf(r.out, "node %s runs %s; its log is %s\n", r.name, r.node.version(), r.node.journal())
	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.announce(watching, c.ManagerURL) })
	err = supervise.Run(ctx, unit)
	stop()
	wg.Wait()
	return err
}

// config returns the configuration of the node, from the data directory of the manager.
func (r *nodeRun) config() (rig.NodeConfig, error) {
	c := rig.NodeConfig{Name: r.name, BinaryName: r.program, MaxBootAttempts: 3, HoldSecs: 3}
	token, err := os.ReadFile(filepath.Join(r.dir, "registration.token"))
	if err != nil {
		return c, fmt.Errorf("%w (start the manager first: manager-sim serve)", err)
	}
	cert, err := selfsign.Ensure(filepath.Join(r.dir, "tls"))
	if err != nil {
		return c, err
	}
	if r.url == "" {
		r.url = managerURL(r.dir)
	}
	host, ok := strings.CutPrefix(r.url, "https://")
	if !ok {
		return c, cli.Usage(fmt.Errorf("--url %q does not begin with https://", r.url))
	}
	c.ManagerURL, c.Token, c.Fingerprint = "wss://"+host, strings.TrimSpace(string(token)), cert.Fingerprint
	return c, nil
}

// layOut creates the install root, or keeps an existing one. It rewrites config.toml if
// the manager's address or certificate changed.
func (r *nodeRun) layOut(ctx context.Context, c rig.NodeConfig) error {
	root := r.node.root()
	config := r.node.layout().ConfigFile()
	old, err := os.ReadFile(config)
	switch {
	case err == nil && strings.Contains(string(old), c.ManagerURL) && strings.Contains(string(old), c.Fingerprint):
		return nil
	case err == nil:
		return rig.WriteConfig(config, root, c)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	tmp, err := os.MkdirTemp(r.node.dir, ".making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := r.first(ctx, &c, filepath.Join(tmp, "program")); err != nil {
		return err
	}
	if err := rig.LayOut(ctx, filepath.Join(tmp, "root"), root, c); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tmp, "root"), root)
}

// first sets the program that the node runs first, and its version. It unpacks a
// published release in the new directory to.
func (r *nodeRun) first(ctx context.Context, c *rig.NodeConfig, to string) error {
	file := r.binary
	c.Binary = r.binary
	if r.binary == "" {
		if r.version == "" {
			list, err := fakerelease.Index(releasesUnder(r.dir), "edge", release.DefaultChannel)
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return errors.New("no releases are published yet; publish one first: manager-sim release publish --version 1.0.0")
			}
			r.version = list[len(list)-1].Version
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		if _, err := fakerelease.Unpack(releasesUnder(r.dir), r.repository, r.version, to); err != nil {
			return err
		}
		c.Binary, file = to, filepath.Join(to, r.program)
	}
	out, err := exec.CommandContext(ctx, absolute(file), "version").Output()
	if err != nil {
		return fmt.Errorf("%s version: %w", file, err)
	}
	words := strings.Fields(string(out))
	if len(words) < 2 {
		return fmt.Errorf("%s version: %q has no version", file, cli.Plain(string(out)))
	}
	stamped, sim := strings.CutSuffix(words[1], "+sim")
	if !sim {
		return fmt.Errorf("%s is not a simulation build; build it with: go build -tags sim -ldflags \"-X main.version=1.0.0\"", file)
	}
	if r.version != "" && stamped != r.version {
		return fmt.Errorf("the program of the release %s reports the version %s", r.version, cli.Plain(stamped))
	}
	c.Version = stamped
	return nil
}

// announce prints when the node has registered, and a hint if it does not register.
func (r *nodeRun) announce(ctx context.Context, url string) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	hint := time.After(registerHint)
	for r.node.id() == "" {
		select {
		case <-ctx.Done():
			return
		case <-hint:
			fmt.Fprintf(r.out, "the node has not registered at %s yet; does the manager run? (manager-sim serve)\n", url)
		case <-tick.C:
		}
	}
	at := ""
	if r.dir != defaultDir {
		at = " --dir " + r.dir
	}
	fmt.Fprintf(r.out, `
Registered as node %s.
  upgrade   manager-sim upgrade%s %s VERSION --wait
`, r.node.id(), at, r.name)
	if r.program == "edge-agent" { // another program may have no such command
		fmt.Fprintf(r.out, "  status    %s/edge-agent status --root %s\n", r.node.layout().Current(), r.node.root())
	}
	fmt.Fprint(r.out, "Ctrl-C stops it. The next run continues with the same root.\n\n")
}

// refusesNode is the beginning of an agent's status text after a refusal by its manager,
// for instance because the node was removed.
const refusesNode = "the manager refuses this node"

// printChange prints a change of the service.
func (r *nodeRun) printChange(e supervise.Event) {
	version := r.node.version()
	text := ""
	switch e.Kind {
	case supervise.Started:
		text = fmt.Sprintf("starting %s (start %d)", version, e.Start)
	case supervise.Ready:
		text = version + " is ready"
	case supervise.Exited:
		text = "the program ended: " + e.Text
	case supervise.StartTimeout, supervise.PreFailed, supervise.ExecFailed:
		text = fmt.Sprintf("%s failed to start: %s", version, e.Text)
	case supervise.Stopped:
		text = "stopped"
	case supervise.StatusText:
		_, refusal, _ := strings.Cut(e.Text, refusesNode)
		if refusal == "" || refusal == r.refusal {
			return
		}
		r.refusal = refusal
		text = refusesNode + refusal
	default:
		return
	}
	fmt.Fprintf(r.out, "%s  %s\n", e.Time.Format(time.TimeOnly), cli.Plain(text))
}

// lockFile locks path until unlock is called or this process ends. It returns EWOULDBLOCK
// if another process has the lock.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// syncWriter makes a writer safe for concurrent use.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}
