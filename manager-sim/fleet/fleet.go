// Package fleet is many simulated nodes in one process: each holds a WebSocket
// to a manager and behaves as an agent does, as far as a manager can see. They
// install nothing. What a node has to tell it tells until it is acknowledged,
// and a command that is repeated it answers once more and does not obey twice.
package fleet

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// Fate is what becomes of an upgrade on a node.
type Fate string

// The fates.
const (
	Good      Fate = ""
	Refused   Fate = "refused"     // staging fails: a bad checksum
	GoesBack  Fate = "rolled-back" // it does not come up healthy
	NeverEnds Fate = "never-ends"  // started, and not a word more
)

// Traits are how a node differs from one that is well.
type Traits struct {
	Slow     int  // each step takes so many times as long; 0 is 1
	Away     bool // it is offline for awaySteps steps after each awaySteps steps online
	Degraded bool // its health beats say so
}

// awaySteps is how many steps a node with Traits.Away is online, and then offline.
const awaySteps = 15

// Kept is what a node keeps when its process ends.
type Kept struct {
	ID       string `json:"id"`
	Secret   string `json:"secret"`
	Version  string `json:"version"`
	Previous string `json:"previous,omitempty"`
}

// Config says what the nodes are like. URL and Token are required.
type Config struct {
	URL        string // wss://HOST:PORT/ws/node
	Token      string // registration token
	TLS        *tls.Config
	Nodes      int
	Version    string // that they run at first; default 1.0.0
	DeviceType string // default "edge"
	// Fate of an upgrade; nil means that all are good.
	Fate func(node int, version string) Fate
	// Traits of a node; nil means that all are well.
	Traits func(node int) Traits
	// Kept is what the nodes kept, by node; there may be fewer than Nodes. One
	// whose credentials the manager does not know tries again with them.
	Kept []Kept
	// Changed, if set, gets what a node must keep, whenever that changes: from the
	// node's own goroutine.
	Changed func(node int, k Kept)
	// Step is how long each step of an upgrade takes, and the pause before a
	// node connects again, each with jitter; default 200 ms.
	Step time.Duration
}

// Fleet runs until its context is done.
type Fleet struct {
	nodes []*node
	wg    sync.WaitGroup
}

// Start starts the nodes. Wait for them with Wait once ctx is done.
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
	if c.Fate == nil {
		c.Fate = func(int, string) Fate { return Good }
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
		if i < len(c.Kept) {
			n.restore(c.Kept[i])
		}
		f.nodes = append(f.nodes, n)
		f.wg.Go(func() { n.run(ctx) })
	}
	return f, nil
}

// Wait returns when all nodes have stopped.
func (f *Fleet) Wait() { f.wg.Wait() }

// Obeyed returns how many upgrades each node has begun.
func (f *Fleet) Obeyed() []int {
	out := make([]int, len(f.nodes))
	for i, n := range f.nodes {
		out[i] = int(n.obeyed.Load())
	}
	return out
}
