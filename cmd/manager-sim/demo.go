package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

// demoLimit bounds the time of the demo after its programs are built.
const demoLimit = 60 * time.Second

func newDemoCmd() *cobra.Command {
	var dir string
	var timeline, asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Upgrade a real agent, then see a bad release roll back",
		Long: `Demo builds edge-agent for the simulation, and publishes it as 1.0.0, 1.1.0, and a
1.2.0 that crashes. It starts a manager, a release host, and a node under a small
supervisor that follows the rules of the systemd unit. It upgrades the node to 1.1.0,
then to 1.2.0, which rolls back. It needs only Go: no root and no systemd, and it
installs nothing. It exits with 0 only if every step happened.`,
		Example: `  go run ./cmd/manager-sim demo
  go run ./cmd/manager-sim demo --dir /tmp/demo
  go run ./cmd/manager-sim demo --timeline
  go run ./cmd/manager-sim demo --timeline --json 2>/dev/null`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && !timeline {
				return cli.Usage(errors.New("--json without --timeline: it is the downtime that is printed as JSON"))
			}
			out := cmd.OutOrStdout()
			if asJSON { // alone
				out = cmd.ErrOrStderr()
			}
			began := time.Now()
			if dir == "" {
				var err error
				if dir, err = os.MkdirTemp("", "edge-agent-demo-"); err != nil {
					return err
				}
			} else if err := emptyDir(dir); err != nil {
				return cli.Usage(err)
			}
			d := &demo{out: out, dir: absolute(dir), began: began, timeline: timeline}
			if asJSON {
				d.json = cmd.OutOrStdout()
			}
			err := d.run(cmd.Context())
			fmt.Fprintf(out, `
logs: %[1]s/node.journal (the node), %[1]s/manager.log (the manager)
next: %[1]s/edge-agent-1.1.0 status --root %[1]s/node
      go run ./cmd/manager-sim serve --help
      rm -r %[1]s
`, d.dir)
			if err != nil {
				fmt.Fprintf(out, "demo: failed: %v\n", err)
				return cli.ErrPrinted
			}
			fmt.Fprintf(out, "demo: ok in %.1f s\n", time.Since(began).Seconds())
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory for all files, new or empty (default: a temporary one)")
	cmd.Flags().BoolVar(&timeline, "timeline", false, "print each part of the downtime of the upgrade to 1.1.0")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the downtime as JSON, and everything else to stderr; with --timeline")
	return cmd
}

func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("--dir %s is not empty", dir)
	}
	return err
}

type demo struct {
	mu    sync.Mutex // of out, which several goroutines use
	out   io.Writer
	dir   string
	began time.Time

	timeline bool      // prints the downtime
	json     io.Writer // gets it as JSON; nil: it is printed as a table

	rig  *rig.Rig
	node *rig.Node
	id   string
}

// say prints a line with the time and the part that did something.
func (d *demo) say(who, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, "%6.2f  %-8s %s\n", time.Since(d.began).Seconds(), who, cli.Plain(fmt.Sprintf(format, args...)))
}

// printEntry prints an entry of the timeline.
func (d *demo) printEntry(e rig.Entry) {
	switch e.Type {
	case "authenticated":
		d.say("manager", "the node authenticated with version %s", e.Version)
	case "disconnected":
		d.say("manager", "the node disconnected")
	case "event":
		d.say("manager", "event %s (%s): %s", e.ErrorCode, e.Severity, e.Message)
	case "ack":
		d.say("manager", "ack: %s", map[bool]string{true: "staged", false: e.ErrorCode}[e.Success])
	case "started":
		d.say("node", "start %d of the service", e.Start)
	case "ready":
		d.say("node", "READY=1")
	case "exited", "start_timeout", "pre_failed", "exec_failed":
		d.say("node", "%s: %s", e.Type, e.Message)
	}
}

func (d *demo) run(ctx context.Context) error {
	d.say("demo", "all files are in %s", d.dir)
	d.say("demo", "building edge-agent 1.0.0, 1.1.0 and 1.2.0 (the first time takes about a minute)")
	programs, err := rig.Build(ctx, d.dir, "1.0.0", "1.1.0", "1.2.0")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, demoLimit, fmt.Errorf("a step did not happen within %v", demoLimit))
	defer cancel()
	if d.rig, err = rig.New(ctx, d.dir, d.printEntry); err != nil {
		return err
	}
	defer d.rig.Close()
	d.say("demo", "manager at %s", d.rig.URL)
	for _, o := range []fakerelease.Options{
		{Version: "1.0.0"}, {Version: "1.1.0", RekorV2: true}, {Version: "1.2.0", Fault: fakerelease.ExitsAtOnce},
	} {
		o.Binary = programs[o.Version]
		o.Formats, o.Chunks = []string{release.FormatZstd}, true
		p, err := d.rig.Publish(o)
		if err != nil {
			return err
		}
		what := ""
		if o.Fault != "" {
			what = ", which will crash"
		}
		d.say("demo", "published %s%s: %s (%.1f MB)", p.Version, what, p.Tarball, float64(p.Size)/1e6)
	}
	d.node, err = d.rig.Install(ctx, rig.NodeConfig{Version: "1.0.0", Binary: programs["1.0.0"], MaxBootAttempts: 3, HoldSecs: 1})
	if err != nil {
		return err
	}
	d.node.Start()
	defer d.node.Stop()
	for _, step := range []func(context.Context) error{d.register, d.good, d.bad} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// await waits for an entry of the timeline.
func (d *demo) await(ctx context.Context, mark int, what string, match func(rig.Entry) bool) (rig.Entry, error) {
	e, err := d.rig.Timeline.Wait(ctx, mark, match)
	if err != nil {
		return e, fmt.Errorf("waiting for %s: %w", what, err)
	}
	return e, nil
}

func (d *demo) register(ctx context.Context) error {
	e, err := d.await(ctx, 0, "the node to register", func(e rig.Entry) bool { return e.Type == "capabilities" })
	d.id = e.NodeID
	return err
}

func (d *demo) good(ctx context.Context) error {
	mark := d.rig.Timeline.Mark()
	d.say("demo", "POST /api/v1/nodes/%s/upgrade {\"version\":\"1.1.0\"}", d.id)
	if _, err := d.rig.Upgrade(ctx, d.id, "1.1.0"); err != nil {
		return err
	}
	if _, err := d.await(ctx, mark, "upgrade_completed", event("upgrade_completed")); err != nil {
		return err
	}
	if d.timeline {
		if err := d.showDowntime(mark); err != nil {
			return err
		}
	}
	return d.check(ctx, "1.1.0", "stable", "updated")
}

func (d *demo) bad(ctx context.Context) error {
	mark := d.rig.Timeline.Mark()
	d.say("demo", "POST /api/v1/nodes/%s/upgrade {\"version\":\"1.2.0\"}", d.id)
	if _, err := d.rig.Upgrade(ctx, d.id, "1.2.0"); err != nil {
		return err
	}
	if _, err := d.await(ctx, mark, "upgrade_rolled_back", event("upgrade_rolled_back")); err != nil {
		return err
	}
	crashes := 0
	for _, e := range d.rig.Timeline.Since(mark) {
		if e.Type == "exited" && e.Message != "exit status 0" {
			crashes++
		}
	}
	if crashes != 3 {
		return fmt.Errorf("1.2.0 crashed %d times, not max_boot_attempts = 3 times", crashes)
	}
	return d.check(ctx, "1.1.0", "rolled_back", "rolled_back")
}

func event(code string) func(rig.Entry) bool {
	return func(e rig.Entry) bool { return e.Type == "event" && e.ErrorCode == code }
}

// check compares the node's links, its own status, and the manager's record with what they
// should be.
func (d *demo) check(ctx context.Context, version, status, state string) error {
	st, err := d.node.Status(ctx)
	if err != nil {
		return err
	}
	rec, err := d.rig.Client.Node(ctx, d.id)
	if err != nil {
		return err
	}
	tree, err := d.node.Tree()
	if err != nil {
		return err
	}
	d.say("demo", "current -> %s, last-good -> %s, status %s; at the manager %s, %s",
		tree.Current, tree.LastGood, st.Status, rec.Version, rec.UpgradeState)
	if tree.Current.String() != version || tree.LastGood.String() != version || string(st.Status) != status ||
		rec.Version != version || string(rec.UpgradeState) != state || !rec.Online {
		return fmt.Errorf("the node should run %s, with the status %s on the node and %s at the manager", version, status, state)
	}
	return nil
}
