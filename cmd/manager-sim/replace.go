package main

import (
	"context"
	"fmt"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// confirmReplace prints the command that --replace withdraws, and asks for confirmation on a
// terminal. The request then names that command: if the node has another one by then, the
// manager refuses it.
func (u *upgrade) confirmReplace(ctx context.Context) error {
	n, err := u.Node(ctx, u.node)
	if err != nil {
		return err
	}
	why := n.NotUpgradable
	if n.UpgradeState != api.Queued || why == nil || why.Code != api.CodeUpgradeInProgress {
		return nil // there is nothing to replace, or the manager refuses it with the reason
	}
	u.replaces = n.CommandID
	fmt.Fprintf(u.cmd.ErrOrStderr(), "replacing command %s: %s\n", cli.Plain(n.CommandID), cli.Plain(why.Reason))
	return cli.Confirm(u.cmd, u.yes, fmt.Sprintf("This withdraws that command of node %s and requests %s.", u.node, u.version))
}
