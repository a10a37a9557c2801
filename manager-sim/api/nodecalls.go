package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

const root = "/api/v1"

func nodePath(id string) string { return root + "/nodes/" + url.PathEscape(id) }

// Nodes returns a page of the nodes, by id.
func (c *Client) Nodes(ctx context.Context, q NodeQuery, options ...Option) (NodeList, error) {
	return get[NodeList](ctx, c, root+"/nodes", q.values(), options)
}

// AllNodes returns all nodes that q selects, by id. It reads as many pages as needed.
func (c *Client) AllNodes(ctx context.Context, q NodeQuery) ([]Node, error) {
	q.Limit = MaxLimit
	return collect(func(after string) ([]Node, string, error) {
		q.After = after
		list, err := c.Nodes(ctx, q)
		return list.Nodes, list.Next, err
	})
}

// Node returns a node, also a removed one.
func (c *Client) Node(ctx context.Context, id string, options ...Option) (Node, error) {
	return get[Node](ctx, c, nodePath(id), nil, options)
}

// Commands returns a page of a node's commands, newest first. limit is at most
// MaxLimit; 0 means DefaultLimit.
func (c *Client) Commands(ctx context.Context, nodeID string, limit int, after string, options ...Option) (CommandList, error) {
	v := values{}
	v.number("limit", limit)
	v.text("after", after)
	return get[CommandList](ctx, c, nodePath(nodeID)+"/commands", url.Values(v), options)
}

// Connections returns when a node connected and disconnected, newest first.
func (c *Client) Connections(ctx context.Context, nodeID string, options ...Option) ([]Connection, error) {
	list, err := get[ConnectionList](ctx, c, nodePath(nodeID)+"/connections", nil, options)
	return list.Connections, err
}

// UpgradeNode requests an upgrade of one node, and returns the command's id. A
// refusal has a code of NotUpgradable.
func (c *Client) UpgradeNode(ctx context.Context, nodeID string, u NodeUpgrade, options ...Option) (commandID string, err error) {
	made, err := change[CommandCreated](ctx, c, http.MethodPost, nodePath(nodeID)+"/upgrade", u, options)
	return made.CommandID, err
}

// WithdrawUpgrade withdraws a node's command, also one that was sent, and returns the node.
// CodeNotNow means that the command is over.
func (c *Client) WithdrawUpgrade(ctx context.Context, nodeID string, w Withdrawal, options ...Option) (Node, error) {
	return change[Node](ctx, c, http.MethodPost, nodePath(nodeID)+"/withdraw", w, options)
}

// RemoveNode revokes a node's secret and ends its session. Its history stays. The
// reason may be empty.
func (c *Client) RemoveNode(ctx context.Context, nodeID, reason string, options ...Option) error {
	return c.Call(ctx, http.MethodDelete, nodePath(nodeID), reasonBody(reason), nil, options...)
}

// ResolveNode ends a node's mark as a duplicate, and returns the node.
func (c *Client) ResolveNode(ctx context.Context, nodeID string, options ...Option) (Node, error) {
	return change[Node](ctx, c, http.MethodPost, nodePath(nodeID)+"/resolve", nil, options)
}

// SetGroup moves a node into a group; "": out of any.
func (c *Client) SetGroup(ctx context.Context, nodeID, groupID string, options ...Option) error {
	return c.Call(ctx, http.MethodPut, nodePath(nodeID)+"/group", Membership{groupID}, nil, options...)
}

// PendingNodes returns the nodes whose credentials the manager does not know.
func (c *Client) PendingNodes(ctx context.Context, options ...Option) ([]PendingNode, error) {
	list, err := get[PendingNodeList](ctx, c, root+"/pending-nodes", nil, options)
	return list.Nodes, err
}

// AcceptPendingNode accepts a pending node with its own credentials, into a group
// or, with "", into none. It returns the node's id.
func (c *Client) AcceptPendingNode(ctx context.Context, id, groupID string, options ...Option) (string, error) {
	accepted, err := change[NodeAccepted](ctx, c, http.MethodPost, root+"/pending-nodes/"+url.PathEscape(id)+"/accept", Acceptance{groupID}, options)
	return accepted.ID, err
}

// DismissPendingNode hides a pending node for an hour.
func (c *Client) DismissPendingNode(ctx context.Context, id string, options ...Option) error {
	return c.Call(ctx, http.MethodDelete, root+"/pending-nodes/"+url.PathEscape(id), nil, nil, options...)
}

// Events returns a page of events, newest first.
func (c *Client) Events(ctx context.Context, q EventQuery, options ...Option) (EventList, error) {
	return get[EventList](ctx, c, root+"/events", q.values(), options)
}

// NewestEvent returns the Seq of the newest event, from which Stream continues; 0 if
// there is none.
func (c *Client) NewestEvent(ctx context.Context) (int64, error) {
	list, err := c.Events(ctx, EventQuery{PerPage: 1})
	if err != nil || len(list.Events) == 0 {
		return 0, err
	}
	return list.Events[0].Seq, nil
}

// Stream follows the event stream. With after, the Seq of an event, the manager
// first repeats the events after it. The caller closes the stream.
func (c *Client) Stream(ctx context.Context, after int64) (*Stream, error) {
	header := http.Header{"Accept": {"text/event-stream"}}
	if after > 0 {
		header.Set("Last-Event-Id", strconv.FormatInt(after, 10))
	}
	resp, err := c.send(ctx, http.MethodGet, root+"/events/stream", nil, header)
	if err != nil {
		return nil, err
	}
	return newStream(resp.Body), nil
}

// Releases returns the newest releases for a device type on a channel, newest
// first. An empty channel means stable.
func (c *Client) Releases(ctx context.Context, deviceType, channel string, options ...Option) ([]Release, error) {
	v := values{}
	v.text("channel", channel)
	list, err := get[ReleaseList](ctx, c, root+"/releases/"+url.PathEscape(deviceType), url.Values(v), options)
	return list.Releases, err
}
