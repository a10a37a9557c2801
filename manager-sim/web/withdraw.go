package web

import (
	"fmt"
	"net/url"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

func (r *request) withdrawPage() error { return r.confirmWithdraw(nil) }

func (r *request) confirmWithdraw(refusal error) error {
	n, err := r.readableNode()
	if err != nil {
		return err
	}
	at := "/admin/nodes/" + url.PathEscape(n.ID)
	return r.confirm(refusal, confirmation{
		Title: "Withdraw the upgrade of node " + n.ID, Nav: "nodes", Action: at + "/withdraw?command=" + url.QueryEscape(n.CommandID), Button: "Withdraw", Cancel: at,
		Effects: []string{
			fmt.Sprintf("The manager does not send the upgrade to %s any more.", n.TargetVersion),
			"If the node has it already, the manager tells the node to stop before the restart into the new version. An agent that does not know withdrawals may still carry it out.",
			"An upgrade that has passed that point goes on. Its outcome is recorded.",
		}})
}

// readableNode returns the node that the path names. Of one whose record the manager cannot read
// it returns the id and the last command: an operator can remove it, and withdraw that.
func (r *request) readableNode() (api.Node, error) {
	id := r.PathValue("id")
	n, err := r.api.Node(r.Context(), id)
	if !api.Unreadable(err) {
		return n, err
	}
	n = api.Node{ID: id}
	list, err := r.api.Commands(r.Context(), id, 1, "")
	if err == nil && len(list.Commands) > 0 {
		n.CommandID, n.TargetVersion = list.Commands[0].ID, list.Commands[0].Version
	}
	return n, err
}

func (r *request) withdraw() error {
	id := r.PathValue("id")
	if _, err := r.api.WithdrawUpgrade(r.Context(), id, api.Withdrawal{CommandID: r.URL.Query().Get("command"), Reason: r.reason()}); err != nil {
		return r.confirmWithdraw(err)
	}
	return r.to("/admin/nodes/%s", url.PathEscape(id))
}

// withdrawal returns the moment at which a command was withdrawn or held; false: it was not.
func withdrawal(c api.Command) (moment, bool) {
	m := moment{At: c.WithdrawnAt, What: "withdrawn", Message: words(c.WithdrawReason)}
	if c.WithdrawnBy != "" {
		m.Message += " by " + c.WithdrawnBy
	}
	switch {
	case c.WithdrawnAt.IsZero():
		return m, false
	case c.MayStillRun:
		m.Message += ". The node may still carry it out."
	}
	return m, true
}
