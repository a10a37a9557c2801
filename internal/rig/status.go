package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
)

// Status is what `edge-agent status --json` prints, without what nobody reads here.
type Status struct {
	Status       state.Status `json:"status"`
	Current      string       `json:"current"` // a version
	LastGood     string       `json:"last_good"`
	BootAttempts int          `json:"boot_attempts"`
	Undelivered  int          `json:"undelivered_events"`
	Trial        struct {
		Stage state.TrialStage `json:"stage"`
	} `json:"trial"`
}

func decodeStatus(out []byte) (Status, error) {
	var s Status
	err := json.Unmarshal(out, &s)
	return s, err
}

// Status returns what `edge-agent status --json` prints on the node.
func (n *Node) Status(ctx context.Context) (Status, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(n.layout.LastGood(), "edge-agent"), "status", "--json", "--root", n.Root).Output()
	if err != nil {
		return Status{}, err
	}
	return decodeStatus(out)
}

// Status returns what `edge-agent status --json` prints for the node's install root.
func (n *BoxNode) Status(ctx context.Context) (Status, error) {
	out, err := n.Exec(ctx, boxTool, "status", "--json", "--root", BoxRoot)
	if err != nil {
		return Status{}, err
	}
	return decodeStatus([]byte(out))
}

// Tree returns the versions of the install root, and the links to them.
func (n *Node) Tree() (state.Tree, error) { return n.layout.Tree() }

// Tree returns the versions of the install root, and the links to them.
func (n *BoxNode) Tree(ctx context.Context) (state.Tree, error) {
	root, err := n.Path(ctx, BoxRoot)
	if err != nil {
		return state.Tree{}, err
	}
	l, err := state.At(root)
	if err != nil {
		return state.Tree{}, err
	}
	return l.Tree()
}

// NodeID returns the id that the manager gave to the node with the install root l. It
// returns an error before the node has registered.
func NodeID(l state.Layout) (string, error) {
	b, err := fsutil.ReadFile(l.CredentialsFile(), 1<<20)
	if err != nil {
		return "", err
	}
	var c struct {
		NodeID string `json:"node_id"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return "", fmt.Errorf("%s: %w", l.CredentialsFile(), err)
	}
	return c.NodeID, nil
}
