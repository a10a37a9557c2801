package api

import (
	"context"
	"net/http"
	"net/url"
)

// Groups returns the groups, by name.
func (c *Client) Groups(ctx context.Context, options ...Option) ([]Group, error) {
	list, err := get[GroupList](ctx, c, root+"/groups", nil, options)
	return list.Groups, err
}

// CreateGroup adds a group.
func (c *Client) CreateGroup(ctx context.Context, name string, options ...Option) (Group, error) {
	return change[Group](ctx, c, http.MethodPost, root+"/groups", NewGroup{name}, options)
}

// Group returns a group with its nodes.
func (c *Client) Group(ctx context.Context, id string, options ...Option) (GroupDetail, error) {
	return get[GroupDetail](ctx, c, root+"/groups/"+url.PathEscape(id), nil, options)
}

// UpgradeGroup begins a rollout to a group. With DryRun it only returns the plan.
func (c *Client) UpgradeGroup(ctx context.Context, groupID string, r RolloutRequest, options ...Option) (RolloutPlan, error) {
	return change[RolloutPlan](ctx, c, http.MethodPost, root+"/groups/"+url.PathEscape(groupID)+"/upgrade", r, options)
}

// Rollouts returns a page of rollouts, newest first.
func (c *Client) Rollouts(ctx context.Context, q RolloutQuery, options ...Option) (RolloutList, error) {
	return get[RolloutList](ctx, c, root+"/rollouts", q.values(), options)
}

// AllRollouts returns all rollouts that q selects, newest first. It reads as many
// pages as needed.
func (c *Client) AllRollouts(ctx context.Context, q RolloutQuery) ([]Rollout, error) {
	q.Limit = MaxLimit
	return collect(func(after string) ([]Rollout, string, error) {
		q.After = after
		list, err := c.Rollouts(ctx, q)
		return list.Rollouts, list.Next, err
	})
}

// Rollout returns a rollout, with the messages of the nodes that failed.
func (c *Client) Rollout(ctx context.Context, id string, options ...Option) (Rollout, error) {
	return get[Rollout](ctx, c, root+"/rollouts/"+url.PathEscape(id), nil, options)
}

// ActOnRollout pauses, resumes, retries or aborts a rollout, or skips a node of it:
// act is ActPause and so on. It returns the rollout after the act. CodeNotNow means
// that its status does not allow the act, CodePreconditionFailed that it has changed since
// a.Revision.
func (c *Client) ActOnRollout(ctx context.Context, id, act string, a RolloutAct, options ...Option) (Rollout, error) {
	var body any
	if a != (RolloutAct{}) {
		body = a
	}
	return change[Rollout](ctx, c, http.MethodPost, root+"/rollouts/"+url.PathEscape(id)+"/"+url.PathEscape(act), body, options)
}

// AuditLog returns a page of the audit trail, newest first.
func (c *Client) AuditLog(ctx context.Context, q AuditQuery, options ...Option) (AuditList, error) {
	return get[AuditList](ctx, c, root+"/audit-log", q.values(), options)
}

// Users returns the users, by name.
func (c *Client) Users(ctx context.Context, options ...Option) ([]User, error) {
	list, err := get[UserList](ctx, c, root+"/users", nil, options)
	return list.Users, err
}

// CreateUser adds a user.
func (c *Client) CreateUser(ctx context.Context, u NewUser, options ...Option) (UserCreated, error) {
	return change[UserCreated](ctx, c, http.MethodPost, root+"/users", u, options)
}

// UpdateUser changes a user's role, groups or password.
func (c *Client) UpdateUser(ctx context.Context, name string, u UserChange, options ...Option) (User, error) {
	return change[User](ctx, c, http.MethodPatch, userPath(name), u, options)
}

// RemoveUser removes a user, its sessions, and the tokens that it created. The
// reason may be empty.
func (c *Client) RemoveUser(ctx context.Context, name, reason string, options ...Option) error {
	return c.Call(ctx, http.MethodDelete, userPath(name), reasonBody(reason), nil, options...)
}

func userPath(name string) string { return root + "/users/" + url.PathEscape(name) }

// ChangePassword changes the password of the user who is signed in, and ends the
// user's other sessions.
func (c *Client) ChangePassword(ctx context.Context, p PasswordChange, options ...Option) error {
	return c.Call(ctx, http.MethodPut, root+"/password", p, nil, options...)
}

// Tokens returns the tokens, newest first, also expired ones.
func (c *Client) Tokens(ctx context.Context, options ...Option) ([]Token, error) {
	list, err := get[TokenList](ctx, c, root+"/tokens", nil, options)
	return list.Tokens, err
}

// CreateToken creates a token. Only this answer has its secret.
func (c *Client) CreateToken(ctx context.Context, t NewToken, options ...Option) (TokenCreated, error) {
	return change[TokenCreated](ctx, c, http.MethodPost, root+"/tokens", t, options)
}

// RevokeToken revokes a token, and those that were created with it. The reason may
// be empty.
func (c *Client) RevokeToken(ctx context.Context, id, reason string, options ...Option) error {
	return c.Call(ctx, http.MethodDelete, root+"/tokens/"+url.PathEscape(id), reasonBody(reason), nil, options...)
}

// Metrics returns the manager's metrics in Prometheus' text format.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	var text []byte
	err := c.Call(ctx, http.MethodGet, "/metrics", nil, nil, WithRaw(&text), func(c *call) { c.header.Set("Accept", "text/plain") })
	return string(text), err
}

// OpenAPI returns the manager's description of its API, as OpenAPI 3.1.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	var text []byte
	err := c.Call(ctx, http.MethodGet, root+"/openapi.json", nil, nil, WithRaw(&text))
	return text, err
}
