package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
)

// minPrefix is how many characters an abbreviated id has at least.
const minPrefix = 4

// maxCandidates bounds the list in an error of an ambiguous id.
const maxCandidates = 10

// pick returns the one id that name abbreviates. what is "node" or "rollout".
func pick(what, name string, ids []string) (string, error) {
	if slices.Contains(ids, name) {
		return name, nil
	}
	if len(name) < minPrefix {
		return "", cli.Usage(fmt.Errorf("%s %q: give the id, or at least its first %d characters", what, name, minPrefix))
	}
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !beginsWith(id, name) })
	switch len(ids) {
	case 0:
		return "", fmt.Errorf("there is no %s whose id is or begins with %q", what, name)
	case 1:
		return ids[0], nil
	}
	more := ""
	if len(ids) > maxCandidates {
		more = fmt.Sprintf("\nand %d more", len(ids)-maxCandidates)
		ids = ids[:maxCandidates]
	}
	return "", cli.Usage(fmt.Errorf("%s %q is ambiguous; it can be:\n%s%s", what, name, strings.Join(ids, "\n"), more))
}

// beginsWith reports whether id begins with prefix, in upper or lower case.
func beginsWith(id, prefix string) bool {
	return strings.HasPrefix(strings.ToLower(id), strings.ToLower(prefix))
}

// nodeID returns the id of a node that is named by its id, by the beginning of it,
// or by the name that `node run` gave it. A removed node is found if no other one is
// meant: the manager then answers that it was removed.
func (c *client) nodeID(ctx context.Context, name string) (string, error) {
	return c.findNode(ctx, name, false)
}

// anyNodeID is nodeID for a question about history: a removed node counts as much as
// the others.
func (c *client) anyNodeID(ctx context.Context, name string) (string, error) {
	return c.findNode(ctx, name, true)
}

func (c *client) findNode(ctx context.Context, name string, history bool) (string, error) {
	if checkNodeName(name) == nil {
		if id := nodeUnder(c.dir, name).id(); id != "" {
			return id, nil
		}
	}
	exact := func() bool {
		var n nodeAnswer
		_, err := c.call(ctx, http.MethodGet, "/api/v1/nodes/"+url.PathEscape(name), nil, &n)
		return err == nil && n.ID == name
	}
	if len(name) < minPrefix {
		if name != "" && exact() {
			return name, nil
		}
		return pick("node", name, nil)
	}
	var ids []string
	for _, removed := range []string{"", "&removed=true"} {
		if removed != "" && !history && len(ids) > 0 {
			break
		}
		raw, err := c.all(ctx, "/api/v1/nodes?limit=1000&id_prefix="+url.QueryEscape(name)+removed, "nodes")
		if err != nil {
			return "", err
		}
		list, err := decode[nodeAnswer](raw)
		if err != nil {
			return "", err
		}
		for _, n := range list {
			ids = append(ids, n.ID)
		}
	}
	if len(ids) == 0 && exact() {
		return name, nil
	}
	// A manager of an earlier version gives the same list twice.
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return pick("node", name, ids)
}

type groupAnswer struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

func (c *client) groups(ctx context.Context) ([]groupAnswer, error) {
	var list struct {
		Groups []groupAnswer `json:"groups"`
	}
	_, err := c.call(ctx, http.MethodGet, "/api/v1/groups", nil, &list)
	return list.Groups, err
}

// groupID finds a group by id or name.
func (c *client) groupID(ctx context.Context, name string) (string, error) {
	groups, err := c.groups(ctx)
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		if g.ID == name || g.Name == name {
			return g.ID, nil
		}
	}
	var names []string
	for _, g := range groups {
		names = append(names, g.Name)
	}
	if len(names) == 0 {
		return "", fmt.Errorf("there is no group %q, and no other one", name)
	}
	return "", fmt.Errorf("there is no group %q; there are: %s", name, strings.Join(names, ", "))
}

// groupNames returns the names of the groups, by id.
func (c *client) groupNames(ctx context.Context) (map[string]string, error) {
	groups, err := c.groups(ctx)
	names := make(map[string]string, len(groups))
	for _, g := range groups {
		names[g.ID] = g.Name
	}
	return names, err
}

// rolloutID returns the id of a rollout that is named by its id, by the beginning
// of it, or by a group: then it is the group's newest rollout.
func (c *client) rolloutID(ctx context.Context, name string) (string, error) {
	groups, err := c.groups(ctx)
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		if g.Name != name && g.ID != name {
			continue
		}
		var list struct {
			Rollouts []rolloutAnswer `json:"rollouts"`
		}
		if _, err := c.call(ctx, http.MethodGet, "/api/v1/rollouts?limit=1&group_id="+url.QueryEscape(g.ID), nil, &list); err != nil {
			return "", err
		}
		if len(list.Rollouts) == 0 {
			return "", fmt.Errorf("the group %q has had no rollout", g.Name)
		}
		return list.Rollouts[0].ID, nil
	}
	raw, err := c.all(ctx, "/api/v1/rollouts?limit=1000", "rollouts")
	if err != nil {
		return "", err
	}
	list, err := decode[rolloutAnswer](raw)
	if err != nil {
		return "", err
	}
	ids := make([]string, len(list))
	for i, r := range list {
		ids[i] = r.ID
	}
	return pick("rollout", name, ids)
}
