package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/wire"
)

// shownActions is how many commands to actions the page of a node shows.
const shownActions = 10

// longResult is from how many characters a result is folded.
const longResult = 2000

// action is a command to an author's action as the pages show it.
type action struct{ api.Action }

// Status describes how far the command is.
func (a action) Status() string {
	switch {
	case a.State == api.ActionPending:
		return "waits for the node; sent until " + utc(a.ExpiresAt)
	case a.State == api.ActionSent:
		return "sent; the node has not answered"
	case a.State == api.ActionExpired:
		return "expired: the node did not answer in time. A late answer still counts."
	case a.State == api.ActionWithdrawn && a.WithdrawReason == "rights":
		return "withdrawn: " + a.RequestedBy + " had no right to it any more when the node connected"
	case a.State == api.ActionWithdrawn:
		return "withdrawn by " + a.WithdrawnBy
	case a.Success:
		return "done after " + a.AnsweredAt.Sub(a.CreatedAt).Round(100*time.Millisecond).String()
	}
	return "failed"
}

// MayWithdraw reports whether the command was not sent yet.
func (a action) MayWithdraw() bool { return a.State == api.ActionPending }

// Bad reports whether the status is one of a command that did not do what it should.
func (a action) Bad() bool { return a.Over() && !a.Success }

// Failure returns why the command failed, or nil.
func (a action) Failure() *failure {
	if a.State != api.ActionEnded || a.Success {
		return nil
	}
	return failureOf(a.ErrorCode, a.Error)
}

// Long reports whether the result is folded.
func (a action) Long() bool { return len(a.ResultText()) > longResult }

// actionForm is what an operator chose in the form of a command.
type actionForm struct{ Action, Params string }

// actionsOf returns the newest commands to the actions of a node.
func (r *request) actionsOf(nodeID string) ([]action, error) {
	list, err := r.api.Actions(r.Context(), nodeID, shownActions, "")
	out := make([]action, len(list.Actions))
	for i, a := range list.Actions {
		out[i] = action{a}
	}
	return out, err
}

// sendAction sends a command to an action of a node. If it is refused, the page has the form
// as it was.
func (r *request) sendAction() error {
	id := r.PathValue("id")
	form := actionForm{r.PostFormValue("action"), strings.TrimSpace(r.PostFormValue("params"))}
	err := r.requestAction(id, form)
	if err == nil {
		return r.to("/admin/nodes/%s#commands", url.PathEscape(id))
	}
	return r.refusedAction(err, form)
}

// refusedAction shows the page of the node with why a command, or its withdrawal, was refused.
func (r *request) refusedAction(refusal error, form actionForm) error {
	v, err := r.nodeView()
	if err != nil {
		return err
	}
	v.Form = form
	return r.refused(refusal, "node", "Node "+v.Node.ID, "nodes", v)
}

// withdrawAction withdraws a command that was not sent yet.
func (r *request) withdrawAction() error {
	id := r.PathValue("id")
	if _, err := r.api.WithdrawAction(r.Context(), id, r.PathValue("command"), ""); err != nil {
		return r.refusedAction(err, actionForm{})
	}
	return r.to("/admin/nodes/%s#commands", url.PathEscape(id))
}

func (r *request) requestAction(id string, form actionForm) error {
	body := api.ActionRequest{Action: form.Action}
	if form.Params != "" {
		if err := json.Unmarshal([]byte(form.Params), &body.Params); err != nil {
			return problem(http.StatusBadRequest, fmt.Sprintf("The parameters are not JSON: %v.", err))
		}
	}
	_, err := r.api.SendAction(r.Context(), id, body)
	return err
}

// ActionCodes are the error codes of answers to commands to author's actions.
func ActionCodes() []string {
	return []string{wire.UnknownAction, wire.ActionFailed, wire.ActionTimeout, wire.ActionInterrupted, wire.ActionBusy, wire.ParamsTooLarge}
}

// actionMeaning is Meaning for ActionCodes.
func actionMeaning(code string) (meaning, remedy string) {
	switch code {
	case wire.UnknownAction:
		return "The version that the node runs handles no action of this name.", "See the actions on the node's page, and upgrade the node if a newer version has the action."
	case wire.ActionFailed:
		return "The service on the node reported an error, or its handler panicked.", "Read the error, and the service's journal on the device; it has the stack of a panic."
	case wire.ActionTimeout:
		return "The service's handler did not end within its time limit. What it had done by then is not known.", "See the service's journal on the device before you send the command again."
	case wire.ActionInterrupted:
		return "The service stopped, or crashed, while it carried out the command. The command is not carried out again, and what it had done by then is not known.", "See the service's journal on the device, and send the command again if it is still needed."
	case wire.ActionBusy:
		return "The node did not carry out the command: too many commands wait there, or an earlier one of this action hangs.", "Wait, and send the command again. If an earlier command hangs, restart the service."
	case wire.ParamsTooLarge:
		return "The node did not carry out the command: its parameters have more than 64 KiB.", "Send less, or have the service fetch the data."
	}
	return "", ""
}
