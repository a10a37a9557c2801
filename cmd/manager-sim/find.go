package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// maxCandidates bounds the list in an error of an ambiguous id.
const maxCandidates = 10

// pick returns the only id that name abbreviates. Its errors call the id what: "node"
// or "rollout".
func pick(what, name string, ids []string) (string, error) {
	if slices.Contains(ids, name) {
		return name, nil
	}
	if len(name) < api.MinPrefix {
		return "", cli.Usage(fmt.Errorf("%s %q: give the id, or at least its first %d characters", what, name, api.MinPrefix))
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

// beginsWith reports whether id begins with prefix, in any case of its letters.
func beginsWith(id, prefix string) bool {
	return strings.HasPrefix(strings.ToLower(id), strings.ToLower(prefix))
}

// nodeID returns the id of a node. name is the id, its beginning, or the name that `node
// run` gave the node. It finds a removed node only if no other one matches: the manager
// then answers that it was removed.
func (c *client) nodeID(ctx context.Context, name string) (string, error) {
	return c.findNode(ctx, name, false)
}

// anyNodeID is nodeID for questions about history: removed nodes match like the others.
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
		n, err := c.Node(ctx, name)
		return err == nil && n.ID == name || api.Unreadable(err) // which lists leave out
	}
	if len(name) < api.MinPrefix {
		if name != "" && exact() {
			return name, nil
		}
		return pick("node", name, nil)
	}
	var ids []string
	for _, removed := range []bool{false, true} {
		if removed && !history && len(ids) > 0 {
			break
		}
		list, err := c.AllNodes(ctx, api.NodeQuery{IDPrefix: name, Removed: removed})
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
	// A manager of an earlier version ignores Removed, and returns the same list twice.
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return pick("node", name, ids)
}

// groupID finds a group by id or name.
func (c *client) groupID(ctx context.Context, name string) (string, error) {
	groups, err := c.Groups(ctx)
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
	groups, err := c.Groups(ctx)
	names := make(map[string]string, len(groups))
	for _, g := range groups {
		names[g.ID] = g.Name
	}
	return names, err
}

// rolloutID returns the id of a rollout. name is the id, its beginning, or a group: then
// it is the group's newest rollout.
func (c *client) rolloutID(ctx context.Context, name string) (string, error) {
	groups, err := c.Groups(ctx)
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		if g.Name != name && g.ID != name {
			continue
		}
		list, err := c.Rollouts(ctx, api.RolloutQuery{GroupID: g.ID, Limit: 1})
		if err != nil {
			return "", err
		}
		if len(list.Rollouts) == 0 {
			return "", fmt.Errorf("the group %q has had no rollout", g.Name)
		}
		return list.Rollouts[0].ID, nil
	}
	list, err := c.AllRollouts(ctx, api.RolloutQuery{})
	if err != nil {
		return "", err
	}
	ids := make([]string, len(list))
	for i, r := range list {
		ids[i] = r.ID
	}
	return pick("rollout", name, ids)
}
