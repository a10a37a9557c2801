package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
)

// route is one call of the API: how it is served, and what openapi.json says about it.
type route struct {
	method, path string
	role         api.Role // the least that is required
	handle       http.HandlerFunc
	summary      string
	query        []param
	in           any   // the body's type; nil: none
	status       int   // of success; 0: 200
	out          any   // the answer's type; nil: none
	ifMatch      bool  // it reads If-Match
	secret       bool  // the answer is not kept for an Idempotency-Key
	maxBody      int64 // bytes of the body; 0: api.MaxBody
}

// param is a parameter of the query.
type param struct {
	name, kind, text string // kind: a type of JSON Schema, or "time"
}

var paging = []param{
	{"limit", "integer", fmt.Sprintf("at most this many entries: 1 to %d; default %d", api.MaxLimit, api.DefaultLimit)},
	{"after", "string", "continue after this entry: `next` of the previous answer"},
}

func paged(params ...param) []param { return slices.Concat(params, paging) }

// severities lists the values of the parameter severity.
func severities() string {
	var names []string
	for _, s := range release.Severities() {
		names = append(names, string(s))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// handlers are the routes by resource.
type handlers struct {
	nodes    nodeRoutes
	actions  actionRoutes
	pending  pendingRoutes
	groups   groupRoutes
	rollouts rolloutRoutes
	records  recordRoutes
	stream   streamRoutes
	users    userRoutes
	tokens   tokenRoutes
	metrics  *metrics
}

func (h *handlers) table() []route {
	return slices.Concat(h.nodeTable(), h.actionTable(), h.recordTable(), h.groupTable(), h.userTable())
}

func (h *handlers) nodeTable() []route {
	return []route{
		{method: "GET", path: "/api/v1/nodes", role: api.Viewer, handle: h.nodes.list, summary: "List the nodes, by id",
			query: paged(param{"id_prefix", "string", "only nodes whose id begins with this"}, param{"removed", "boolean", "the removed nodes in place of the others"}), out: api.NodeList{}},
		{method: "GET", path: "/api/v1/nodes/{id}", role: api.Viewer, handle: h.nodes.get, summary: "Show a node", out: api.Node{}},
		{method: "GET", path: "/api/v1/nodes/{id}/commands", role: api.Viewer, handle: h.nodes.commands, summary: "List a node's commands, newest first", query: paging, out: api.CommandList{}},
		{method: "GET", path: "/api/v1/nodes/{id}/connections", role: api.Viewer, handle: h.nodes.connections, summary: "List when a node connected and disconnected, newest first", out: api.ConnectionList{}},
		{method: "POST", path: "/api/v1/nodes/{id}/upgrade", role: api.Operator, handle: h.nodes.upgrade, summary: "Request an upgrade of a node", in: api.NodeUpgrade{}, status: 202, out: api.CommandCreated{}},
		{method: "POST", path: "/api/v1/nodes/{id}/withdraw", role: api.Operator, handle: func(w http.ResponseWriter, r *http.Request) { withdraw(&h.nodes, w, r) }, summary: "Withdraw a node's upgrade, also one that was sent", in: api.Withdrawal{}, out: api.Node{}},
		{method: "DELETE", path: "/api/v1/nodes/{id}", role: api.GroupAdmin, handle: h.nodes.remove, summary: "Remove a node: its secret is revoked, its history stays", in: api.Reason{}, status: 204},
		{method: "POST", path: "/api/v1/nodes/{id}/resolve", role: api.GroupAdmin, handle: h.nodes.resolve, summary: "End a node's mark as a duplicate", out: api.Node{}},
		{method: "PUT", path: "/api/v1/nodes/{id}/group", role: api.GroupAdmin, handle: h.nodes.setGroup, summary: "Move a node into a group, or out of any", in: api.Membership{}, out: api.Membership{}},
		{method: "GET", path: "/api/v1/pending-nodes", role: api.SuperAdmin, handle: h.pending.list, summary: "List the nodes whose credentials this manager does not know", out: api.PendingNodeList{}},
		{method: "POST", path: "/api/v1/pending-nodes/{id}/accept", role: api.SuperAdmin, handle: h.pending.accept, summary: "Accept a pending node with its own credentials", in: api.Acceptance{}, status: 201, out: api.NodeAccepted{}},
		{method: "DELETE", path: "/api/v1/pending-nodes/{id}", role: api.SuperAdmin, handle: h.pending.dismiss, summary: "Ignore a pending node for an hour", status: 204},
	}
}

func (h *handlers) actionTable() []route {
	return []route{
		{method: "GET", path: "/api/v1/nodes/{id}/actions", role: api.Viewer, handle: h.actions.list, summary: "List the commands to a node's own actions, newest first, with their results", query: paging, out: api.ActionList{}},
		{method: "POST", path: "/api/v1/nodes/{id}/actions", role: api.Operator, handle: h.actions.create, summary: "Send a node a command to an action that it announced", in: api.ActionRequest{}, status: 202, out: api.CommandCreated{}, maxBody: api.MaxActionBody},
		{method: "GET", path: "/api/v1/nodes/{id}/actions/{command}", role: api.Viewer, handle: h.actions.get, summary: "Show a command to a node's action, with its result", out: api.Action{}},
		{method: "POST", path: "/api/v1/nodes/{id}/actions/{command}/withdraw", role: api.Operator, handle: h.actions.withdraw, summary: "Withdraw a command to a node's action that was never sent", in: api.Reason{}, out: api.Action{}},
	}
}

func (h *handlers) recordTable() []route {
	return []route{
		{method: "GET", path: "/api/v1/events", role: api.Viewer, handle: h.records.events, summary: "List events, newest first", query: []param{
			{"node_id", "string", fmt.Sprintf("of this node: its id, or at least the first %d characters of it", api.MinPrefix)},
			{"severity", "string", severities()}, {"category", "string", "for instance upgrade"},
			{"command_id", "string", "for this command"}, {"search", "string", "with this text in the message or the error code"},
			{"from", "time", "received then or later"}, {"to", "time", "received before"},
			{"after", "string", "continue after this event: `next` of the previous answer. Unlike page, new events do not move it"},
			{"page", "integer", "from 1"}, {"per_page", "integer", fmt.Sprintf("1 to %d; default %d", api.MaxEventsPerPage, api.DefaultEventsPerPage)},
		}, out: api.EventList{}},
		{method: "GET", path: "/api/v1/events/stream", role: api.Viewer, handle: h.stream.serve, summary: "Follow what happens, as server-sent events (text/event-stream); Last-Event-ID repeats the events that were missed"},
		{method: "GET", path: "/api/v1/audit-log", role: api.SuperAdmin, handle: h.records.audit, summary: "List the audit trail, newest first",
			query: paged(param{"actor", "string", "by this user or token"}, param{"action", "string", "for instance denied"}, param{"target", "string", "about this node, group or user"}), out: api.AuditList{}},
		{method: "GET", path: "/api/v1/releases/{device_type}", role: api.Viewer, handle: h.records.releases, summary: "List the newest releases for a device type",
			query: []param{{"channel", "string", "default " + release.DefaultChannel}}, out: api.ReleaseList{}},
		{method: "GET", path: "/metrics", role: api.Viewer, handle: h.metrics.serve, summary: "Show metrics in Prometheus' text format"},
	}
}

func (h *handlers) groupTable() []route {
	return []route{
		{method: "GET", path: "/api/v1/groups", role: api.Viewer, handle: h.groups.list, summary: "List the groups, by name", out: api.GroupList{}},
		{method: "POST", path: "/api/v1/groups", role: api.SuperAdmin, handle: h.groups.create, summary: "Add a group", in: api.NewGroup{}, status: 201, out: api.Group{}},
		{method: "GET", path: "/api/v1/groups/{id}", role: api.Viewer, handle: h.groups.get, summary: "Show a group and its nodes", out: api.GroupDetail{}},
		{method: "POST", path: "/api/v1/groups/{id}/upgrade", role: api.GroupAdmin, handle: h.groups.upgrade, summary: "Begin a rollout to a group; with dry_run (200) only report what it would do", in: api.RolloutRequest{}, status: 202, out: api.RolloutPlan{}},
		{method: "GET", path: "/api/v1/rollouts", role: api.Viewer, handle: h.rollouts.list, summary: "List rollouts, newest first",
			query: paged(param{"group_id", "string", "to this group"}, param{"active", "boolean", "only those that have not ended"}), out: api.RolloutList{}},
		{method: "GET", path: "/api/v1/rollouts/{id}", role: api.Viewer, handle: h.rollouts.get, summary: "Show a rollout", out: api.Rollout{}},
		{method: "POST", path: "/api/v1/rollouts/{id}/{act}", role: api.GroupAdmin, handle: h.rollouts.act, summary: "pause, resume, retry, skip (a node) or abort a rollout", ifMatch: true, in: api.RolloutAct{}, out: api.Rollout{}},
	}
}

func (h *handlers) userTable() []route {
	return []route{
		{method: "GET", path: "/api/v1/users", role: api.SuperAdmin, handle: h.users.list, summary: "List the users, by name", out: api.UserList{}},
		{method: "POST", path: "/api/v1/users", role: api.SuperAdmin, handle: h.users.create, summary: "Add a user", in: api.NewUser{}, status: 201, out: api.UserCreated{}},
		{method: "PATCH", path: "/api/v1/users/{name}", role: api.SuperAdmin, handle: h.users.update, summary: "Change a user's role, groups or password", in: api.UserChange{}, out: api.User{}},
		{method: "DELETE", path: "/api/v1/users/{name}", role: api.SuperAdmin, handle: h.users.remove, summary: "Remove a user, its sessions, and the tokens that it created", in: api.Reason{}, status: 204},
		{method: "PUT", path: "/api/v1/password", role: api.Viewer, handle: h.users.changePassword, summary: "Change the password of the user who is signed in, and end its other sessions", in: api.PasswordChange{}, status: 204},
		{method: "GET", path: "/api/v1/tokens", role: api.SuperAdmin, handle: h.tokens.list, summary: "List the tokens, newest first, also expired ones", out: api.TokenList{}},
		{method: "POST", path: "/api/v1/tokens", role: api.SuperAdmin, handle: h.tokens.create, summary: "Create a program's bearer token; its secret is shown once", in: api.NewToken{}, status: 201, out: api.TokenCreated{}, secret: true},
		{method: "DELETE", path: "/api/v1/tokens/{id}", role: api.SuperAdmin, handle: h.tokens.revoke, summary: "Revoke a token, and those that it created", in: api.Reason{}, status: 204},
	}
}

// mostBody returns how many bytes the body may have.
func (rt route) mostBody() int64 {
	if rt.maxBody == 0 {
		return api.MaxBody
	}
	return rt.maxBody
}

// success returns the status of success.
func (rt route) success() int {
	if rt.status == 0 {
		return http.StatusOK
	}
	return rt.status
}
