// Package state reads what an install root says of its node: which versions are installed,
// which one runs, and how its last upgrade does. It takes no lock and changes nothing, so it
// works beside a running agent, and for a user who may only read the root.
//
// A service that links package agent has more, and without a file, in agent.Status.
package state

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Status is how far the last upgrade is.
type Status = state.Status

// The values of Status.
const (
	Stable        = state.Stable        // Current is the version that last proved healthy
	StagedManual  = state.StagedManual  // Target waits for an operator to apply it
	PendingHealth = state.PendingHealth // Current is on trial
	RolledBack    = state.RolledBack    // Target failed its trial, and Current is the version before it
)

// TrialStage is what a version on trial has reached.
type TrialStage = state.TrialStage

// The values of TrialStage.
const (
	OnTrial    = state.OnTrial    // it has not proved healthy yet
	UnderGuard = state.UnderGuard // it proved healthy, and can still be rolled back
	Unproven   = state.Unproven   // its check held, and its link to the manager is not proven; it serves
)

// Node is what an install root says of its node.
type Node struct {
	Status Status
	Since  time.Time // when Status was reached, by the node's clock
	// Current, Previous and LastGood are where the links point to; zero: nowhere.
	Current, Previous, LastGood release.Version
	// Target is the version on trial, staged or rolled back from; zero: none.
	Target release.Version
	// Stage is what the version on trial has reached; "": none is on trial.
	Stage TrialStage
	// Starts counts the starts of Target; at MaxStarts it is rolled back. FailedStarts are the
	// causes of those that failed; "": unknown.
	Starts, MaxStarts int
	FailedStarts      []string
	Reason            string // of the rollback
	// Floor is the lowest version that the node may install; zero: any.
	Floor release.Version
	// Installed are the versions that can be started, newest first. Damaged are the others,
	// with the reason.
	Installed []release.Version
	Damaged   map[release.Version]string
	// Undelivered is the number of reports that the manager has not acknowledged.
	Undelivered int
}

// Read reads an install root. With an error Node has what could be read.
func Read(root string) (Node, error) {
	l, err := state.At(root)
	if err != nil {
		return Node{}, fmt.Errorf("state: %w", err)
	}
	res, err := l.Read()
	t, treeErr := l.Tree() // the links as they are, and not as the next change of the root leaves them
	s := res.State
	n := Node{
		Status: s.Status, Since: s.Since, Current: t.Current, Previous: t.Previous, LastGood: t.LastGood, Target: s.Target,
		Starts: s.BootAttempts, MaxStarts: s.MaxBootAttempts, FailedStarts: s.FailedStarts, Reason: s.Reason, Floor: s.Floor,
		Installed: t.Versions, Damaged: maps.Clone(t.Damaged),
	}
	if s.Status == PendingHealth {
		n.Stage = l.Reached(s)
	}
	entries, _, outboxErr := l.Outbox().List()
	n.Undelivered = len(entries)
	if err := errors.Join(err, treeErr, outboxErr); err != nil {
		return n, fmt.Errorf("state: %w", err)
	}
	return n, nil
}
