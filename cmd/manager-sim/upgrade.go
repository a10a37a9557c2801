package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/spf13/cobra"
)

// waitCodes is the help text about the exit codes of --wait.
const waitCodes = `
Exit codes:
  0  completed
  1  another error, or interrupted
  2  wrong usage
  3  the node rolled back
  4  refused, or failed
  5  timed out; the upgrade continues
  6  the manager is unreachable, or the node never connected`

func newUpgradeCmd() *cobra.Command {
	u := upgrade{}
	cmd := &cobra.Command{
		Use:   "upgrade NODE VERSION",
		Short: "Upgrade one node of a running manager",
		Long: `Upgrade requests a version for a node. The node's id can be abbreviated to 4 or
more characters; a node of "node run" has a name, too.

With --replace it prints the request that it withdraws: who requested what, and
when. On a terminal it asks for confirmation. The manager refuses it if the node
has another request by then; the exit code is then 4.

With --wait it prints events until the version has proved healthy, the node has
refused it, or the node has rolled back. It survives a restart of the manager.
` + waitCodes,
		Example: `  manager-sim upgrade 1e8821f6 1.1.0 --wait
  manager-sim upgrade my-node 1.1.0 --wait --timeout 2m`,
		Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return u.run(cmd, args[0], args[1]) },
	}
	u.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&u.channel, "channel", "", "release channel (default: stable)")
	f.BoolVar(&u.unlisted, "allow-unlisted", false, "allow a version that is not published for the node's device type")
	f.BoolVar(&u.replace, "replace", false, "withdraw an earlier request that was never sent to the node")
	yesFlag(cmd, &u.yes)
	f.BoolVar(&u.repair, "repair", false, "this version is the repair: the node accepts it even if its own check fails now")
	f.DurationVar(&u.limit, "limit", 0, "time limit of the upgrade, renewed by the progress that the node reports: 1m to 24h (default 1h)")
	f.BoolVar(&u.wait, "wait", false, "wait for the outcome")
	f.DurationVar(&u.timeout, "timeout", 15*time.Minute, "limit of --wait; 0s is no limit")
	return cmd
}

// upgrade is one run of the command.
type upgrade struct {
	client
	channel       string
	unlisted      bool
	replace, wait bool
	repair        bool
	yes           bool
	timeout       time.Duration
	limit         time.Duration // 0: the manager's default

	cmd        *cobra.Command
	node       string // its id
	replaces   string // the id of the command that --replace withdraws
	version    string
	commandID  string
	ranVersion bool   // the node ran the version when it was requested
	wasOnline  bool   // the node has been online
	printed    int64  // Seq of the last event that was printed
	trial      string // what was printed about an unproven version
}

func (u *upgrade) run(cmd *cobra.Command, name, version string) error {
	u.cmd, u.version = cmd, version
	if _, err := release.ParseVersion(version); err != nil {
		return cli.Usage(err)
	}
	if err := checkTimeout(cmd, u.timeout, u.wait); err != nil {
		return err
	}
	if secs := int(u.limit / time.Second); cmd.Flags().Changed("limit") && (secs < api.MinLimitSecs || secs > api.MaxLimitSecs) {
		return cli.Usage(errors.New("--limit must be 1m to 24h"))
	}
	var err error
	if u.node, err = u.nodeID(cmd.Context(), name); err != nil {
		return err
	}
	if u.replace {
		if err := u.confirmReplace(cmd.Context()); err != nil {
			return err
		}
	}
	if !u.wait {
		return u.request(cmd.Context())
	}
	ctx, cancel := deadline(cmd.Context(), u.timeout)
	defer cancel()
	w := &watch{
		begin:  func() error { return u.request(ctx) },
		record: func(r api.Record) (bool, error) { return u.record(ctx, r) },
		check:  func() (bool, error) { return u.check(ctx) },
	}
	err = u.follow(cmd, ctx, w)
	switch {
	case errors.Is(err, errTimeout) && w.silent():
		return unreachable(fmt.Errorf("the manager does not answer; the upgrade continues, see: manager-sim node show %s", u.node))
	case errors.Is(err, errTimeout) && w.begun && !u.wasOnline:
		return unreachable(fmt.Errorf("node %s did not connect within %v; the command waits for it", u.node, u.timeout))
	case errors.Is(err, errTimeout):
		return cli.Exit(cli.TimedOut, fmt.Errorf("no outcome of the upgrade to %s within %v; it continues, see: manager-sim node show %s", version, u.timeout, u.node))
	case errors.Is(err, context.Canceled) && w.begun:
		return fmt.Errorf("interrupted; the upgrade continues, see: manager-sim node show %s", u.node)
	}
	return err
}

// errTimeout is the cause of a context that --timeout ended.
var errTimeout = errors.New("timed out")

// deadline returns a context that ends after timeout; 0 means no limit.
func deadline(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, timeout, errTimeout)
}

// request sends the request to the manager, and reports if the node is offline.
func (u *upgrade) request(ctx context.Context) error {
	var answer []byte
	id, err := u.UpgradeNode(ctx, u.node, api.NodeUpgrade{Version: u.version, Channel: u.channel, AllowUnlisted: u.unlisted, Replaces: u.replaces, Repair: u.repair, LimitSecs: int(u.limit / time.Second)}, api.WithRaw(&answer))
	if isConflict(err) {
		return cli.Exit(cli.Refused, fmt.Errorf("the manager refuses the upgrade: %s", withFlag(err.Error())))
	}
	if err != nil {
		return err
	}
	u.commandID = id
	if u.json {
		if err := write(u.cmd, answer); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintf(u.cmd.OutOrStdout(), "command %s\n", cli.Plain(id)); err != nil {
		return err
	}
	n, err := u.state(ctx)
	u.ranVersion = err == nil && n.Version == u.version
	if err == nil && !n.Online {
		fmt.Fprintf(u.cmd.ErrOrStderr(), "Node %s is offline since %s; the command waits for it.\n", cli.Plain(u.node), stamp(n.LastSeen))
	}
	return nil // the request succeeded, even if state failed
}

// withFlag adds the flag of this command to a remedy of a manager of an earlier version.
func withFlag(remedy string) string {
	return strings.ReplaceAll(remedy, "with replace", "with replace (--replace)")
}

func (u *upgrade) state(ctx context.Context) (api.Node, error) {
	n, err := u.Node(ctx, u.node)
	u.wasOnline = u.wasOnline || n.Online
	return n, err
}

// record checks the outcome after a record of the node. With --json it prints the record
// unless it is an event, which check prints.
func (u *upgrade) record(ctx context.Context, r api.Record) (bool, error) {
	if r.NodeID != u.node {
		return false, nil
	}
	u.wasOnline = u.wasOnline || r.Type == api.RecordAuthenticated
	if u.json && r.CommandID == u.commandID && r.Type != api.RecordEvent {
		if err := write(u.cmd, append(r.Raw, '\n')); err != nil {
			return true, err
		}
	}
	return u.check(ctx)
}

// check reports whether the command has ended. It uses the command's events first, then
// the node's state if this command decides it, then the acknowledgement.
func (u *upgrade) check(ctx context.Context) (bool, error) {
	if done, err := u.printEvents(ctx); done || err != nil {
		return done, err
	}
	n, err := u.state(ctx)
	if err != nil {
		return false, err
	}
	if n.CommandID != u.commandID {
		return u.acknowledged(ctx)
	}
	switch n.UpgradeState {
	case api.Updated, api.Changed, api.RolledBack, api.Failed, api.Superseded, api.Withdrawn:
	default:
		return false, u.printTrial(n)
	}
	// The event of this state may have arrived since.
	if done, err := u.printEvents(ctx); done || err != nil {
		return done, err
	}
	switch {
	case n.UpgradeState == api.RolledBack && n.Dependency:
		return true, u.failure(cli.RolledBack, api.RolledBackDependency, rollout.Dependency, n.Error)
	case n.UpgradeState == api.RolledBack:
		return true, u.failure(cli.RolledBack, "rolled back", n.ErrorCode, n.Error)
	case n.UpgradeState == api.Failed && n.ErrorCode == rollout.TimeLimit:
		return true, u.failure(cli.TimedOut, "no outcome", n.ErrorCode, n.Error)
	case n.UpgradeState == api.Failed:
		return true, u.failure(cli.Refused, "failed", n.ErrorCode, n.Error)
	}
	if n.UpgradeState == api.Withdrawn {
		return true, u.failure(cli.Refused, "withdrawn", n.ErrorCode, n.Error)
	}
	if n.UpgradeState == api.Superseded {
		return true, u.superseded()
	}
	if u.ranVersion {
		return true, u.printAlreadyRuns()
	}
	return true, nil
}

// superseded is the error of an upgrade whose unproven version a newer one replaced.
func (u *upgrade) superseded() error {
	return cli.Exit(cli.Refused, fmt.Errorf("upgrade of %s to %s: a newer version took its place (%s)", cli.Plain(u.node), cli.Plain(u.version), release.Superseded))
}

// printTrial prints once that the version is unproven, and what it waits for.
func (u *upgrade) printTrial(n api.Node) error {
	if text := n.TrialText(); n.Trial == api.TrialUnproven && text != u.trial && !u.json {
		u.trial = text
		_, err := fmt.Fprintf(u.cmd.OutOrStdout(), "%s\n", cli.Plain(text))
		return err
	}
	return nil
}

// printAlreadyRuns prints that the node runs the version already.
func (u *upgrade) printAlreadyRuns() error {
	if u.json {
		return nil
	}
	_, err := fmt.Fprintf(u.cmd.OutOrStdout(), "node %s already runs %s\n", cli.Plain(u.node), cli.Plain(u.version))
	return err
}

// printEvents prints the events of the command that are new, oldest first, and reports
// whether one of all of them decides it.
func (u *upgrade) printEvents(ctx context.Context) (bool, error) {
	page, err := u.Events(ctx, api.EventQuery{NodeID: u.node, CommandID: u.commandID, PerPage: api.MaxEventsPerPage})
	if err != nil {
		return false, err
	}
	var completed, rolledBack, failed, superseded *api.Event
	for i, e := range slices.Backward(page.Events) {
		switch code := release.Code(e.ErrorCode); {
		case code == release.RolledBack:
			rolledBack = &page.Events[i]
		case code == release.Superseded:
			superseded = &page.Events[i]
		case code == release.Completed, code == release.StagedManual:
			completed = &page.Events[i]
		case code.Severity() != release.Info && e.ErrorCode != "":
			failed = &page.Events[i]
		}
		if e.Seq <= u.printed {
			continue
		}
		u.printed = e.Seq
		if u.json {
			err = json.NewEncoder(u.cmd.OutOrStdout()).Encode(api.EventRecord{Type: api.RecordEvent, Event: e})
		} else {
			_, err = fmt.Fprintf(u.cmd.OutOrStdout(), "%-22s %s\n", cli.Plain(e.ErrorCode), cli.Plain(e.Message))
		}
		if err != nil {
			return true, err
		}
	}
	switch {
	case rolledBack != nil && dependency(rolledBack.Details):
		return true, u.failure(cli.RolledBack, api.RolledBackDependency, rollout.Dependency, rolledBack.Message)
	case rolledBack != nil:
		return true, u.failure(cli.RolledBack, "rolled back", rolledBack.ErrorCode, rolledBack.Message)
	case completed != nil:
		return true, nil
	case superseded != nil:
		return true, u.superseded()
	case failed != nil:
		return true, u.failure(cli.Refused, "failed", failed.ErrorCode, failed.Message)
	}
	return false, nil
}

// dependency reports whether the details of a rollback say that probably a dependency is down.
func dependency(details json.RawMessage) bool {
	var d wire.Details
	return json.Unmarshal(details, &d) == nil && d.Dependency
}

// acknowledged reports whether the node's answer ends a command that does not decide the
// node's state.
func (u *upgrade) acknowledged(ctx context.Context) (bool, error) {
	list, err := u.Commands(ctx, u.node, api.MaxLimit, "")
	if err != nil {
		return false, err
	}
	for _, c := range list.Commands {
		var data wire.AckData
		switch {
		case c.ID != u.commandID || c.AckedAt.IsZero():
		case !c.Success:
			return true, u.failure(cli.Refused, "failed", c.ErrorCode, c.Error)
		case len(c.Data) > 0 && json.Unmarshal(c.Data, &data) == nil && data.Status == "current":
			return true, u.printAlreadyRuns()
		}
	}
	return false, nil
}

// failure returns the error of an upgrade that did not complete, with the node's own
// message and the remedy of the code.
func (u *upgrade) failure(exit int, how, code, message string) error {
	text := fmt.Sprintf("upgrade of %s to %s: %s (%s)", cli.Plain(u.node), cli.Plain(u.version), how, cli.Plain(code))
	if message != "" {
		text += ": " + cli.Plain(message)
	}
	if meaning, remedy := web.Meaning(code); meaning != "" {
		text += "\n" + meaning + "\n" + remedy
	}
	return cli.Exit(exit, errors.New(text))
}
