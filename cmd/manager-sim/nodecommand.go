package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/spf13/cobra"
)

func newNodeCommandCmd() *cobra.Command {
	n := nodeCommand{}
	cmd := &cobra.Command{
		Use:   "command NODE ACTION",
		Short: "Send a node a command to an action of its service",
		Long: `Command requests an action that the node's service, not its agent, carries out.
"node show" lists the actions that the node announced. A node that is offline gets
the command when it connects, within --life. A node carries a command out once.

With --wait it prints the result as JSON. The parameters are in no answer of the
manager, and not in its log; the result is.

Exit codes:
  0  sent; with --wait: carried out
  1  another error, or interrupted
  2  wrong usage
  4  refused, failed, withdrawn or expired
  5  timed out; the command continues
  6  the manager is unreachable`,
		Example: `  manager-sim node command 1e8821f6 reboot
  manager-sim node command 1e8821f6 set_gain --params '{"db": 3}' --wait
  manager-sim node command 1e8821f6 load_map --params @map.json --wait --timeout 10m`,
		Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return n.run(cmd, args[0], args[1]) },
	}
	n.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&n.params, "params", "", "parameters: JSON of at most 64 KiB, or @FILE with it")
	f.DurationVar(&n.life, "life", 0, "how long the command waits for the node: 1m to 720h (default 24h)")
	f.BoolVar(&n.wait, "wait", false, "wait for the result")
	f.DurationVar(&n.timeout, "timeout", 15*time.Minute, "limit of --wait; 0s is no limit")
	return cmd
}

// nodeCommand is one run of the command.
type nodeCommand struct {
	client
	params  string
	life    time.Duration
	wait    bool
	timeout time.Duration

	cmd      *cobra.Command
	node, id string
}

// readParams returns the parameters that --params gives.
func readParams(text string) (json.RawMessage, error) {
	if text == "" {
		return nil, nil
	}
	if file, ok := strings.CutPrefix(text, "@"); ok {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--params: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, api.MaxActionBody+1))
		if err != nil {
			return nil, fmt.Errorf("--params: %w", err)
		}
		if len(b) > api.MaxActionBody {
			return nil, cli.Usage(fmt.Errorf("--params: %s has more than %d bytes", file, api.MaxActionBody))
		}
		text = string(b)
	}
	var params json.RawMessage
	if err := json.Unmarshal([]byte(text), &params); err != nil {
		return nil, cli.Usage(fmt.Errorf("--params is not JSON: %w", err))
	}
	return params, nil
}

func (n *nodeCommand) run(cmd *cobra.Command, name, action string) error {
	n.cmd = cmd
	if err := checkTimeout(cmd, n.timeout, n.wait); err != nil {
		return err
	}
	if secs := int(n.life / time.Second); cmd.Flags().Changed("life") && (secs < api.MinLifeSecs || secs > api.MaxLifeSecs) {
		return cli.Usage(errors.New("--life must be 1m to 720h"))
	}
	params, err := readParams(n.params)
	if err != nil {
		return err
	}
	if n.node, err = n.nodeID(cmd.Context(), name); err != nil {
		return err
	}
	request := func(ctx context.Context) error {
		return n.request(ctx, api.ActionRequest{Action: action, Params: params, LifeSecs: int(n.life / time.Second)})
	}
	if !n.wait {
		return request(cmd.Context())
	}
	ctx, cancel := deadline(cmd.Context(), n.timeout)
	defer cancel()
	w := &watch{
		begin: func() error { return request(ctx) },
		record: func(r api.Record) (bool, error) {
			if r.CommandID != n.id {
				return false, nil
			}
			return n.check(ctx)
		},
		check: func() (bool, error) { return n.check(ctx) },
	}
	err = n.follow(cmd, ctx, w)
	switch {
	case errors.Is(err, errTimeout) && w.silent():
		return unreachable(errors.New("the manager does not answer; the command continues"))
	case errors.Is(err, errTimeout):
		return cli.Exit(cli.TimedOut, fmt.Errorf("no answer to the command within %v; it continues, see: manager-sim node commands %s", n.timeout, n.node))
	case errors.Is(err, context.Canceled) && w.begun:
		return fmt.Errorf("interrupted; the command continues, see: manager-sim node commands %s", n.node)
	}
	return err
}

// request sends the request to the manager. With --json and --wait only the result is printed.
func (n *nodeCommand) request(ctx context.Context, a api.ActionRequest) error {
	var answer []byte
	id, err := n.SendAction(ctx, n.node, a, api.WithRaw(&answer))
	if isConflict(err) || api.IsCode(err, api.CodeParamsTooLarge) {
		return cli.Exit(cli.Refused, fmt.Errorf("the manager refuses the command: %s", cli.Plain(err.Error())))
	}
	if err != nil {
		return err
	}
	n.id = id
	if n.json {
		if n.wait {
			return nil
		}
		return write(n.cmd, answer)
	}
	to := n.cmd.OutOrStdout()
	if n.wait { // standard output has only the result
		to = n.cmd.ErrOrStderr()
	}
	if _, err := fmt.Fprintf(to, "command %s\n", cli.Plain(id)); err != nil {
		return err
	}
	if v, err := n.Node(ctx, n.node); err == nil && !v.Online {
		fmt.Fprintf(n.cmd.ErrOrStderr(), "Node %s is offline since %s; the command waits for it.\n", cli.Plain(n.node), stamp(v.LastSeen))
	}
	return nil
}

// check prints the result once the command is over.
func (n *nodeCommand) check(ctx context.Context) (bool, error) {
	var answer []byte
	a, err := n.Action(ctx, n.node, n.id, api.WithRaw(&answer))
	if err != nil || !a.Over() {
		return false, err
	}
	switch {
	case n.json:
		err = write(n.cmd, answer)
	case len(a.Result) > 0:
		_, err = fmt.Fprintln(n.cmd.OutOrStdout(), a.ResultText())
	}
	if err != nil || a.State == api.ActionEnded && a.Success {
		return true, err
	}
	text := fmt.Sprintf("command %s: %s", cli.Plain(n.id), a.State)
	if a.State == api.ActionEnded {
		text = fmt.Sprintf("command %s failed (%s)", cli.Plain(n.id), cli.Plain(a.ErrorCode))
		if a.Error != "" {
			text += ": " + cli.Plain(a.Error)
		}
		if meaning, remedy := web.Meaning(a.ErrorCode); meaning != "" {
			text += "\n" + meaning + "\n" + remedy
		}
	}
	return true, cli.Exit(cli.Refused, errors.New(text))
}

func newNodeCommandsCmd() *cobra.Command {
	var c client
	var withdraw, reason string
	cmd := &cobra.Command{
		Use:   "commands NODE",
		Short: "List the commands to the actions of a node's service, newest first",
		Long: `Commands lists the newest commands of "node command" to a node, with their
results. With --withdraw it withdraws one that was never sent.`,
		Example: `  manager-sim node commands 1e8821f6
  manager-sim node commands 1e8821f6 --json | jq '.actions[0].result'
  manager-sim node commands 1e8821f6 --withdraw 0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.anyNodeID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			var answer []byte
			var list api.ActionList
			if withdraw != "" {
				var a api.Action
				a, err = c.WithdrawAction(cmd.Context(), id, withdraw, reason, api.WithRaw(&answer))
				list.Actions = []api.Action{a}
			} else {
				list, err = c.Actions(cmd.Context(), id, 0, "", api.WithRaw(&answer))
			}
			if err != nil || c.json {
				return errors.Join(err, write(cmd, answer))
			}
			if len(list.Actions) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "No commands.")
				return nil
			}
			t := newTable(cmd.OutOrStdout(), "COMMAND", "ACTION", "STATE", "REQUESTED", "BY", "CODE", "RESULT")
			for _, a := range list.Actions {
				result := a.Error
				if len(a.Result) > 0 {
					result = string(a.Result)
				}
				state := a.State
				if a.State == api.ActionEnded && a.Success {
					state = "done"
				} else if a.State == api.ActionEnded {
					state = "failed"
				}
				if r := []rune(result); len(r) > 80 {
					result = string(r[:80]) + "..."
				}
				t.row(a.ID, a.Action, state, stamp(a.CreatedAt), a.RequestedBy, a.ErrorCode, result)
			}
			return t.flush()
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&withdraw, "withdraw", "", "withdraw this command, if it was never sent")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit trail")
	return cmd
}
