package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/nodes"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/google/uuid"
)

// actionRoutes are the routes under /api/v1/nodes/{id}/actions: commands to author's actions.
// They have nothing to do with upgrades: neither waits for the other.
type actionRoutes struct {
	*gate
	views *nodeViews
	hub   *nodes.Hub
	lock  *sync.Mutex // engine.Config.CommandLock
}

func (h *actionRoutes) view(a store.Action) api.Action { return a.API(h.hub.Age(a.CreatedAt)) }

func (h *actionRoutes) list(w http.ResponseWriter, r *http.Request) {
	n, ok := h.views.fromPath(w, r)
	if !ok {
		return
	}
	ctx, unreadable := store.CountUnreadable(r.Context())
	all, err := h.store.Actions(ctx, n.ID)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	page, next, ok := pageOf(w, r, all, func(a store.Action) string { return a.ID })
	if !ok {
		return
	}
	list := api.ActionList{Actions: make([]api.Action, len(page)), Next: next, Unreadable: *unreadable}
	for i, a := range page {
		list.Actions[i] = h.view(a)
	}
	answer.JSON(w, http.StatusOK, list)
}

// fromPath returns the command that the path names. If there is none, it answers.
func (h *actionRoutes) fromPath(w http.ResponseWriter, r *http.Request) (store.Action, bool) {
	n, ok := h.views.fromPath(w, r)
	if !ok {
		return store.Action{}, false
	}
	a, err := h.store.Action(r.Context(), n.ID, r.PathValue("command"))
	if err != nil {
		h.storeFailed(w, err)
	}
	return a, err == nil
}

func (h *actionRoutes) get(w http.ResponseWriter, r *http.Request) {
	if a, ok := h.fromPath(w, r); ok {
		answer.JSON(w, http.StatusOK, h.view(a))
	}
}

// checkAction returns the parameters as they are sent. If the body is not valid, it answers.
func checkAction(w http.ResponseWriter, body api.ActionRequest) (json.RawMessage, bool) {
	if body.LifeSecs != 0 && (body.LifeSecs < api.MinLifeSecs || body.LifeSecs > api.MaxLifeSecs) {
		badRequest(w, fmt.Errorf("life_secs is not %d to %d", api.MinLifeSecs, api.MaxLifeSecs))
		return nil, false
	}
	if len(body.Params) == 0 || string(body.Params) == "null" {
		return nil, true
	}
	params, err := json.Marshal(body.Params) // compact, as the message to the node has it
	if err == nil && !utf8.Valid(params) {
		err = errors.New("params is not UTF-8")
	}
	if err != nil {
		badRequest(w, err)
		return nil, false
	}
	if len(params) > api.MaxParams {
		answer.Problem(w, http.StatusRequestEntityTooLarge, api.CodeParamsTooLarge, "The parameters have %d bytes, more than %d.", len(params), api.MaxParams)
		return nil, false
	}
	return params, true
}

func (h *actionRoutes) create(w http.ResponseWriter, r *http.Request) {
	var body api.ActionRequest
	if !readBodyOf(w, r, &body, api.MaxActionBody) {
		return
	}
	params, ok := checkAction(w, body)
	if !ok {
		return
	}
	n, ok := h.views.fromPath(w, r)
	if !ok {
		return
	}
	a := store.Action{ID: uuid.NewString(), NodeID: n.ID, Action: body.Action, Params: params, ParamsBytes: len(params), CreatedAt: time.Now().UTC(), State: api.ActionPending,
		Life: time.Duration(body.LifeSecs) * time.Second, Actor: requester(r).Name, Acting: requester(r).Key()}
	if a.Life == 0 {
		a.Life = api.DefaultActionLife
	}
	switch f, err := h.request(r, a); {
	case err != nil:
		h.storeFailed(w, err)
	case f != nil:
		answer.Problem(w, http.StatusConflict, f.Code, "%s", f.Detail())
	default:
		h.log.Info().Str("node_id", n.ID).Str("command_id", a.ID).Str("action", a.Action).Int("params_bytes", a.ParamsBytes).Str("actor", a.Actor).Msg("action requested")
		answer.JSON(w, http.StatusAccepted, api.CommandCreated{CommandID: a.ID})
	}
}

// request stores a command, and sends it if its node is online. It returns why the node gets no
// such command, or nil.
func (h *actionRoutes) request(r *http.Request, a store.Action) (*api.NotUpgradable, error) {
	ctx := r.Context()
	h.lock.Lock()
	defer h.lock.Unlock()
	n, err := h.store.Node(ctx, a.NodeID)
	if err != nil {
		return nil, err
	}
	switch {
	case !n.RemovedAt.IsZero():
		return &api.NotUpgradable{Code: api.CodeRemoved, Reason: "The node was removed.", Remedy: "Register the device again to manage it."}, nil
	case !n.Duplicate.Since.IsZero():
		return &api.NotUpgradable{Code: api.CodeDuplicateIdentity, Reason: "Two devices use the identity of this node: " + n.Duplicate.From() + ".",
			Remedy: "Give one of them an identity of its own, then mark this as resolved."}, nil
	case !slices.Contains(n.Actions, a.Action):
		return &api.NotUpgradable{Code: api.CodeActionNotAnnounced, Reason: fmt.Sprintf("The node announced no action %.80q when it connected last.", a.Action),
			Remedy: announced(n.Actions)}, nil
	}
	open, err := h.store.OpenActions(ctx, n.ID)
	if err != nil {
		return nil, err
	}
	k := 0
	for _, o := range open {
		if h.hub.Age(o.CreatedAt) < o.Life {
			k++
		} else if err := h.store.ExpireAction(ctx, o.ID); err != nil {
			return nil, err
		}
	}
	if k >= api.MaxOpenActions {
		return &api.NotUpgradable{Code: api.CodeTooManyCommands, Reason: fmt.Sprintf("The node has not answered %d commands.", k),
			Remedy: "Wait until it has answered some, or withdraw those that were not sent."}, nil
	}
	err = h.store.AddAction(ctx, a, entry(r, "node.action.request", n.ID, map[string]any{"command_id": a.ID, "action": a.Action, "params_bytes": a.ParamsBytes}))
	if err != nil {
		return nil, err
	}
	nodes.SendAction(h.hub, a)
	return nil, nil
}

func announced(actions []string) string {
	if len(actions) == 0 {
		return "Its service handles no actions."
	}
	return fmt.Sprintf("Choose one of %q.", actions)
}

func (h *actionRoutes) withdraw(w http.ResponseWriter, r *http.Request) {
	reason, ok := readReason(w, r)
	if !ok {
		return
	}
	a, ok := h.fromPath(w, r)
	if !ok {
		return
	}
	h.lock.Lock()
	err := h.store.WithdrawAction(r.Context(), a.ID, requester(r).Name, reason, entry(r, "node.action.withdraw", a.NodeID, map[string]any{"command_id": a.ID, "reason": reason}))
	h.lock.Unlock()
	switch {
	case errors.Is(err, store.ErrConflict):
		answer.Problem(w, http.StatusConflict, api.CodeNotNow, "The command was sent, or is over. A service cannot be told to stop carrying it out.")
	case err != nil:
		h.storeFailed(w, err)
	default:
		h.log.Info().Str("node_id", a.NodeID).Str("command_id", a.ID).Str("actor", requester(r).Name).Msg("action withdrawn")
		h.get(w, r)
	}
}
