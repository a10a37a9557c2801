package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

// waitCodes is the part of a help text about the exit codes of --wait.
const waitCodes = `
Exit codes:
  0  completed
  1  another error, or interrupted
  2  wrong usage
  3  the node rolled back
  4  refused, or failed
  5  timed out; what was begun continues
  6  the manager cannot be reached, or the node never connected`

func newUpgradeCmd() *cobra.Command {
	u := upgrade{}
	cmd := &cobra.Command{
		Use:   "upgrade NODE VERSION",
		Short: "Upgrade one node of a running manager",
		Long: `Upgrade requests a version for a node. The node's id can be abbreviated to 4 or
more characters; a node of "node run" has a name, too.

With --wait it prints what happens until the node has proved the version healthy,
has refused it, or has rolled back. It continues through a restart of the manager.
` + waitCodes,
		Example: `  manager-sim upgrade 1e8821f6 1.1.0 --wait
  manager-sim upgrade my-node 1.1.0 --wait --timeout 2m`,
		Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return u.run(cmd, args[0], args[1]) },
	}
	u.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&u.channel, "channel", "", "release channel (default: stable)")
	f.BoolVar(&u.unlisted, "allow-unlisted", false, "also a version that is not published for the node's device type")
	f.BoolVar(&u.replace, "replace", false, "withdraw an earlier request that an offline node has not received")
	f.BoolVar(&u.wait, "wait", false, "wait for the outcome")
	f.DurationVar(&u.timeout, "timeout", 15*time.Minute, "with --wait: how long; 0s is no limit")
	return cmd
}

// upgrade is one call of the command.
type upgrade struct {
	client
	channel       string
	unlisted      bool
	replace, wait bool
	timeout       time.Duration

	cmd       *cobra.Command
	node      string // its id
	version   string
	commandID string
	already   bool  // the node ran the version when it was requested
	met       bool  // the node has been online
	printed   int64 // Seq of the last event that was printed
}

func (u *upgrade) run(cmd *cobra.Command, name, version string) error {
	u.cmd, u.version = cmd, version
	if _, err := release.ParseVersion(version); err != nil {
		return cli.Usage(err)
	}
	if err := checkTimeout(cmd, u.timeout, u.wait); err != nil {
		return err
	}
	var err error
	if u.node, err = u.nodeID(cmd.Context(), name); err != nil {
		return err
	}
	if !u.wait {
		return u.request(cmd.Context())
	}
	ctx, cancel := deadline(cmd.Context(), u.timeout)
	defer cancel()
	w := &watch{
		begin:  func() error { return u.request(ctx) },
		record: func(r record, raw []byte) (bool, error) { return u.record(ctx, r, raw) },
		check:  func() (bool, error) { return u.check(ctx) },
	}
	err = u.follow(cmd, ctx, w)
	switch {
	case errors.Is(err, errTimeout) && w.silent():
		return unreachable(fmt.Errorf("no answer of the manager; the upgrade continues, see: manager-sim node show %s", u.node))
	case errors.Is(err, errTimeout) && w.begun && !u.met:
		return unreachable(fmt.Errorf("node %s did not connect within %v; the command waits for it", u.node, u.timeout))
	case errors.Is(err, errTimeout):
		return cli.Exit(cli.TimedOut, fmt.Errorf("no outcome of the upgrade to %s within %v; it continues, see: manager-sim node show %s", version, u.timeout, u.node))
	case errors.Is(err, context.Canceled) && w.begun:
		return fmt.Errorf("interrupted; the upgrade continues, see: manager-sim node show %s", u.node)
	}
	return err
}

// errTimeout is the cause of a context whose --timeout is over.
var errTimeout = errors.New("timed out")

// deadline is a context that ends after timeout, if that is not 0.
func deadline(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, timeout, errTimeout)
}

// request gives the manager the command, and says so if the node is offline.
func (u *upgrade) request(ctx context.Context) error {
	body := map[string]any{"version": u.version}
	if u.channel != "" {
		body["channel"] = u.channel
	}
	if u.unlisted {
		body["allow_unlisted"] = true
	}
	if u.replace {
		body["replace"] = true
	}
	var answer struct {
		CommandID string `json:"command_id"`
	}
	b, err := u.call(ctx, http.MethodPost, "/api/v1/nodes/"+url.PathEscape(u.node)+"/upgrade", body, &answer)
	var refused *refusal
	if errors.As(err, &refused) && refused.status == http.StatusConflict {
		return cli.Exit(cli.Refused, fmt.Errorf("the manager refuses the upgrade: %s", withFlag(refused.detail)))
	}
	if err != nil {
		return err
	}
	u.commandID = answer.CommandID
	if u.json {
		if err := write(u.cmd, b); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintf(u.cmd.OutOrStdout(), "command %s\n", cli.Plain(answer.CommandID)); err != nil {
		return err
	}
	n, err := u.state(ctx)
	u.already = err == nil && n.Version == u.version
	if err == nil && !n.Online {
		fmt.Fprintf(u.cmd.ErrOrStderr(), "Node %s is offline since %s; the command waits for it.\n", cli.Plain(u.node), cli.Plain(n.LastSeen))
	}
	return nil // the command is given, whatever state says
}

// withFlag adds to a remedy of the manager the flag that does it.
func withFlag(remedy string) string {
	return strings.ReplaceAll(remedy, "with replace", "with replace (--replace)")
}

func (u *upgrade) state(ctx context.Context) (nodeAnswer, error) {
	var n nodeAnswer
	_, err := u.call(ctx, http.MethodGet, "/api/v1/nodes/"+url.PathEscape(u.node), nil, &n)
	u.met = u.met || n.Online
	return n, err
}

// record looks whether what the stream says decides the command. With --json it
// also prints it, unless check prints it: an event.
func (u *upgrade) record(ctx context.Context, r record, raw []byte) (bool, error) {
	if r.NodeID != u.node {
		return false, nil
	}
	u.met = u.met || r.Type == "authenticated"
	if u.json && r.CommandID == u.commandID && r.Type != "event" {
		if err := write(u.cmd, append(raw, '\n')); err != nil {
			return true, err
		}
	}
	return u.check(ctx)
}

// check asks the manager how the command ended: by its events first, then by the
// state of the node if this command decides it, then by its acknowledgement.
func (u *upgrade) check(ctx context.Context) (bool, error) {
	if done, err := u.events(ctx); done || err != nil {
		return done, err
	}
	n, err := u.state(ctx)
	if err != nil {
		return false, err
	}
	if n.CommandID != u.commandID {
		return u.acknowledged(ctx)
	}
	state := api.UpgradeState(n.State)
	switch state {
	case api.Updated, api.Changed, api.RolledBack, api.Failed:
	default:
		return false, nil
	}
	// The event that made it so may have come since.
	if done, err := u.events(ctx); done || err != nil {
		return done, err
	}
	switch {
	case state == api.RolledBack:
		return true, u.ended(cli.RolledBack, "rolled back", n.ErrorCode, n.Error)
	case state == api.Failed && n.ErrorCode == rollout.TimeLimit:
		return true, u.ended(cli.TimedOut, "no outcome", n.ErrorCode, n.Error)
	case state == api.Failed:
		return true, u.ended(cli.Refused, "failed", n.ErrorCode, n.Error)
	}
	if u.already {
		return true, u.nothingToDo()
	}
	return true, nil
}

// nothingToDo says that the node runs the version already.
func (u *upgrade) nothingToDo() error {
	if u.json {
		return nil
	}
	_, err := fmt.Fprintf(u.cmd.OutOrStdout(), "node %s already runs %s\n", cli.Plain(u.node), cli.Plain(u.version))
	return err
}

// events prints the events of the command that are new, oldest first, and reports
// whether one of all of them decides it.
func (u *upgrade) events(ctx context.Context) (bool, error) {
	var page struct {
		Events []json.RawMessage `json:"events"`
	}
	if _, err := u.call(ctx, http.MethodGet, "/api/v1/events?per_page=200&node_id="+url.QueryEscape(u.node)+"&command_id="+url.QueryEscape(u.commandID), nil, &page); err != nil {
		return false, err
	}
	events, err := decode[record](page.Events)
	if err != nil {
		return false, err
	}
	var completed, rolledBack, failed *record
	for i, e := range slices.Backward(events) {
		switch code := release.Code(e.ErrorCode); {
		case code == release.RolledBack:
			rolledBack = &events[i]
		case code == release.Completed, code == release.StagedManual:
			completed = &events[i]
		case code.Severity() != release.Info && e.ErrorCode != "":
			failed = &events[i]
		}
		if e.Seq <= u.printed {
			continue
		}
		u.printed = e.Seq
		if u.json {
			// As the stream has it.
			err = write(u.cmd, append([]byte(`{"type":"event",`), append(bytes.TrimPrefix(page.Events[i], []byte("{")), '\n')...))
		} else {
			_, err = fmt.Fprintf(u.cmd.OutOrStdout(), "%-22s %s\n", cli.Plain(e.ErrorCode), cli.Plain(e.Message))
		}
		if err != nil {
			return true, err
		}
	}
	switch {
	case rolledBack != nil:
		return true, u.ended(cli.RolledBack, "rolled back", rolledBack.ErrorCode, rolledBack.Message)
	case completed != nil:
		return true, nil
	case failed != nil:
		return true, u.ended(cli.Refused, "failed", failed.ErrorCode, failed.Message)
	}
	return false, nil
}

// acknowledged looks at the answer of the node to a command that does not decide
// the node's state.
func (u *upgrade) acknowledged(ctx context.Context) (bool, error) {
	var list struct {
		Commands []struct {
			ID      string `json:"command_id"`
			AckedAt string `json:"acked_at"`
			Success bool   `json:"success"`
			Code    string `json:"error_code"`
			Error   string `json:"error"`
			Data    struct {
				Status string `json:"status"`
			} `json:"data"`
		} `json:"commands"`
	}
	if _, err := u.call(ctx, http.MethodGet, "/api/v1/nodes/"+url.PathEscape(u.node)+"/commands?limit=1000", nil, &list); err != nil {
		return false, err
	}
	for _, c := range list.Commands {
		switch {
		case c.ID != u.commandID || c.AckedAt == "":
		case !c.Success:
			return true, u.ended(cli.Refused, "failed", c.Code, c.Error)
		case c.Data.Status == "current":
			return true, u.nothingToDo()
		}
	}
	return false, nil
}

// ended is the error of an upgrade that did not complete: with the node's own
// message, and the remedy of the code.
func (u *upgrade) ended(exit int, how, code, message string) error {
	text := fmt.Sprintf("upgrade of %s to %s: %s (%s)", cli.Plain(u.node), cli.Plain(u.version), how, cli.Plain(code))
	if message != "" {
		text += ": " + cli.Plain(message)
	}
	if meaning, remedy := web.Meaning(code); meaning != "" {
		text += "\n" + meaning + "\n" + remedy
	}
	return cli.Exit(exit, errors.New(text))
}
