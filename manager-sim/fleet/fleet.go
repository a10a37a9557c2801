// Package fleet simulates many nodes in one process. Each node has a WebSocket to a
// manager, and the manager cannot distinguish it from an agent. The nodes install nothing.
// A node sends each event until the manager acknowledges it. It answers a repeated command
// again, and does not run it twice.
package fleet

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// Outcome is the outcome of an upgrade on a node.
type Outcome string

// The outcomes.
const (
	Completes Outcome = ""
	Refused   Outcome = "refused"     // staging fails with a bad checksum
	RollsBack Outcome = "rolled-back" // the new version does not become healthy
	NeverEnds Outcome = "never-ends"  // the node reports only that the upgrade started
	Unproven  Outcome = "unproven"    // the new version serves, and stays unproven until a newer one takes its place
)

// Traits are the faults of a node.
type Traits struct {
	Slow     int  // factor of the time of each step; 0 means 1
	Offline  bool // the node is offline for offlineSteps after each offlineSteps online
	Degraded bool // its health messages are degraded
}

// offlineSteps is the number of steps that a node with Traits.Offline is online, and then
// offline.
const offlineSteps = 15

// Saved is the state of a node that survives its process.
type Saved struct {
	ID       string `json:"id"`
	Secret   string `json:"secret"`
	Version  string `json:"version"`
	Previous string `json:"previous,omitempty"`
}

// Config describes the nodes. URL and Token are required.
type Config struct {
	URL        string // wss://HOST:PORT/ws/node
	Token      string // registration token
	TLS        *tls.Config
	Nodes      int
	Version    string // first version; default 1.0.0
	DeviceType string // default "edge"
	// Outcome returns the outcome of an upgrade; nil means that all complete.
	Outcome func(node int, version string) Outcome
	// Traits returns the faults of a node; nil means that no node has any.
	Traits func(node int) Traits
	// Actions are those that the nodes announce, and Act answers a command to one of them; its
	// CommandID is set afterwards.
	Actions []string
	Act     func(node int, c *wire.Command) wire.CommandAck
	// Saved has the states of earlier processes, by node; it can be shorter than Nodes.
	// A node with unknown credentials retries with them.
	Saved []Saved
	// Save, unless it is nil, gets each change of a node's state. The goroutine of the
	// node calls it.
	Save func(node int, s Saved)
	// Step is the time of each step of an upgrade, and of the pause before a node
	// reconnects, each with jitter; default 200 ms.
	Step time.Duration
}

// Fleet is a running fleet. It runs until the context of Start ends.
type Fleet struct {
	nodes []*node
	wg    sync.WaitGroup
}

// Start starts the nodes. They run until ctx ends; then call Wait.
func Start(ctx context.Context, c Config) (*Fleet, error) {
	if c.Version == "" {
		c.Version = "1.0.0"
	}
	if c.DeviceType == "" {
		c.DeviceType = "edge"
	}
	if c.Step == 0 {
		c.Step = 200 * time.Millisecond
	}
	if c.Outcome == nil {
		c.Outcome = func(int, string) Outcome { return Completes }
	}
	v, err := release.ParseVersion(c.Version)
	if err != nil {
		return nil, err
	}
	f := &Fleet{}
	for i := range c.Nodes {
		n := &node{c: c, index: i, step: c.Step, version: v, previous: v, commands: map[string]*wire.CommandAck{}}
		if c.Traits != nil {
			n.traits = c.Traits(i)
			n.step *= time.Duration(max(n.traits.Slow, 1))
		}
		if i < len(c.Saved) {
			n.restore(c.Saved[i])
		}
		f.nodes = append(f.nodes, n)
		f.wg.Go(func() { n.run(ctx) })
	}
	return f, nil
}

// Wait returns when all nodes have stopped.
func (f *Fleet) Wait() { f.wg.Wait() }

// UpgradesStarted returns the number of upgrades that each node has started.
func (f *Fleet) UpgradesStarted() []int {
	out := make([]int, len(f.nodes))
	for i, n := range f.nodes {
		out[i] = int(n.started.Load())
	}
	return out
}
