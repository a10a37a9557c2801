package rollout

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// Seen is an act of an operator who saw the rollout with a Decision. If the rollout has
// another one, the act returns a *ChangedError, and nothing changes.
type Seen struct {
	Decision string
	Act      Event
}

func (Seen) event() {}

// ChangedError means that an operator acted on a rollout that has changed since. Its text
// tells what is new.
type ChangedError struct{ Changes []string }

// Error names the changes.
func (e *ChangedError) Error() string {
	return "the rollout has changed since you saw it: since then " + strings.Join(e.Changes, "; ")
}

// maxSeen bounds the part of a Decision that tells what was seen, in bytes. A longer one is
// left out, and the changes are described in general then.
const maxSeen = 600

// seen is what a person sees who decides on a rollout: how far it is, and what went wrong.
// The progress of nodes without an outcome is not part of it.
type seen struct {
	Wave   int              `json:"w"`
	Paused bool             `json:"p,omitempty"`
	Final  bool             `json:"e,omitempty"`
	Nodes  map[int]seenNode `json:"n,omitempty"` // by index, those that fell or are left out
}

// seenNode is the attempt and the state of a node, in short.
type seenNode [2]any

// decisive reports whether a person decides on the state of the node.
func (n Node) decisive() bool {
	return n.fell() || n.State == NodeSkipped
}

func (r Rollout) seen() seen {
	s := seen{Wave: r.Wave, Paused: r.Status == Paused, Final: r.Status.Final()}
	for i, n := range r.Nodes {
		if n.decisive() {
			if s.Nodes == nil {
				s.Nodes = make(map[int]seenNode)
			}
			s.Nodes[i] = seenNode{float64(n.Attempt), string(n.State)} // as JSON decodes it
		}
	}
	return s
}

// Decision returns the revision of what a person decides on: the wave, whether the rollout
// is paused and why, the nodes that failed or are left out, and the rules. It changes with
// each of them, and not with the progress of nodes or of time. It is a text of at most
// maxSeen and some bytes, of letters, digits and .-_ only.
func (r Rollout) Decision() string {
	type fell struct {
		ID, Code string
		State    NodeState
		Attempt  int
		Known    bool
	}
	var nodes []fell
	for _, n := range r.Nodes {
		if n.decisive() {
			nodes = append(nodes, fell{n.ID, n.Code, n.State, n.Attempt, n.Known})
		}
	}
	s, rules := r.seen(), r.Plan
	rules.Manifests = nil // a node may report one that was not known; an operator cannot change them
	b, err := json.Marshal(struct {
		Plan   Plan
		Reason string
		Waves  []int
		Seen   seen
		Nodes  []fell
	}{rules, r.Reason, r.Waves, seen{Wave: s.Wave, Paused: s.Paused, Final: s.Final}, nodes})
	if err != nil {
		panic(err) // numbers and texts only
	}
	h := sha256.Sum256(b)
	token := hex.EncodeToString(h[:16])
	if b, err = json.Marshal(s); err == nil {
		if text := base64.RawURLEncoding.EncodeToString(b); len(text) <= maxSeen {
			token += "." + text
		}
	}
	return token
}

// changes describes what is new since a person saw the rollout with a decision. Nobody has
// to trust the decision: it only words the refusal.
func (r Rollout) changes(decision string) []string {
	_, text, _ := strings.Cut(decision, ".")
	var was seen
	b, err := base64.RawURLEncoding.DecodeString(text)
	if len(text) > maxSeen || err != nil || json.Unmarshal(b, &was) != nil {
		return []string{"its wave, its failures, its status or its rules are others"}
	}
	now := r.seen()
	var changes []string
	switch {
	case now.Final && !was.Final:
		changes = append(changes, "it has ended: "+string(r.Status))
	case now.Paused && !was.Paused && r.Reason != "":
		changes = append(changes, "it was "+r.Reason)
	case now.Paused && !was.Paused:
		changes = append(changes, "it paused")
	case was.Paused && !now.Paused:
		changes = append(changes, "it was resumed")
	}
	if now.Wave != was.Wave {
		changes = append(changes, fmt.Sprintf("wave %d of %d began", r.Wave+1, len(r.Waves)))
	}
	fell := map[NodeState][]string{}
	var better []string
	for i, n := range r.Nodes {
		switch {
		case n.decisive() && was.Nodes[i] != now.Nodes[i]:
			fell[n.State] = append(fell[n.State], n.ID)
		case !n.decisive() && was.Nodes[i] != (seenNode{}):
			better = append(better, n.ID)
		}
	}
	for _, f := range []struct {
		state NodeState
		word  string
	}{{NodeFailed, "failed"}, {NodeRolledBack, "rolled back"}, {NodeDependency, "rolled back, probably for a dependency"}, {NodeUnproven, "reached the time limit unproven"}, {NodeSkipped, "left out"}} {
		if ids := fell[f.state]; len(ids) > 0 {
			changes = append(changes, fmt.Sprintf("%s %s: %s", moreNodes(len(ids)), f.word, list(ids)))
		}
	}
	if len(better) > 0 {
		changes = append(changes, fmt.Sprintf("no longer failed or left out: %s", list(better)))
	}
	if len(changes) == 0 {
		changes = []string{"the reasons of its failures, or its rules, are others"}
	}
	return changes
}

func moreNodes(n int) string {
	if n == 1 {
		return "1 more node"
	}
	return fmt.Sprintf("%d more nodes", n)
}
