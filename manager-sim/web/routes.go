package web

import "net/http"

// routes are the pages of people who are signed in. Every action that removes or ends
// something has a GET page that describes its effects.
var routes = map[string]func(*request) error{
	"POST /admin/sign-out":                   (*request).signOut,
	"GET /admin/password":                    (*request).passwordPage,
	"POST /admin/password":                   (*request).setOwnPassword,
	"GET /admin/stream":                      (*request).stream,
	"GET /admin/nodes":                       (*request).nodes,
	"GET /admin/nodes/{id}":                  (*request).node,
	"GET /admin/nodes/{id}/upgrade":          (*request).upgradeNodePage,
	"POST /admin/nodes/{id}/upgrade":         (*request).upgradeNode,
	"POST /admin/nodes/{id}/group":           (*request).setGroup,
	"POST /admin/nodes/{id}/resolve":         (*request).resolveNode,
	"GET /admin/nodes/{id}/withdraw":         (*request).withdrawPage,
	"POST /admin/nodes/{id}/withdraw":        (*request).withdraw,
	"POST /admin/nodes/{id}/commands":        (*request).sendAction,
	"GET /admin/nodes/{id}/remove":           (*request).removeNodePage,
	"POST /admin/nodes/{id}/remove":          (*request).removeNode,
	"POST /admin/pending-nodes/{id}/accept":  (*request).acceptNode,
	"POST /admin/pending-nodes/{id}/dismiss": (*request).dismissNode,
	"GET /admin/groups":                      (*request).groups,
	"POST /admin/groups":                     (*request).addGroup,
	"GET /admin/groups/{id}":                 (*request).group,
	"GET /admin/groups/{id}/upgrade":         (*request).upgradeGroupPage,
	"POST /admin/groups/{id}/upgrade":        (*request).upgradeGroup,
	"GET /admin/rollouts":                    (*request).rollouts,
	"GET /admin/rollouts/{id}":               (*request).rollout,
	"GET /admin/rollouts/{id}/abort":         (*request).abortPage,
	"POST /admin/rollouts/{id}/abort":        (*request).abort,
	"POST /admin/rollouts/{id}/{act}":        (*request).actOnRollout,
	"GET /admin/events":                      (*request).events,
	"GET /admin/audit":                       (*request).audit,
	"GET /admin/users":                       (*request).users,
	"POST /admin/users":                      (*request).addUser,
	"GET /admin/users/{name}":                (*request).user,
	"POST /admin/users/{name}/access":        (*request).setAccess,
	"POST /admin/users/{name}/password":      (*request).setPassword,
	"GET /admin/users/{name}/remove":         (*request).removeUserPage,
	"POST /admin/users/{name}/remove":        (*request).removeUser,
	"GET /admin/tokens":                      (*request).tokens,
	"POST /admin/tokens":                     (*request).addToken,
	"GET /admin/tokens/{id}/revoke":          (*request).revokeTokenPage,
	"POST /admin/tokens/{id}/revoke":         (*request).revokeToken,
	"GET /admin/": func(*request) error {
		return problem(http.StatusNotFound, "There is no such page.")
	},

	"POST /admin/nodes/{id}/commands/{command}/withdraw": (*request).withdrawAction,
}
