// Package state records what a node knows of its own upgrades: the state machine,
// state.json, the links and directories of the install root, and the outbox of
// reports that the manager has not acknowledged. It is the only package that
// spells a path of the root (Layout).
//
// A transition is a pure function: it takes a State, a Tree and the time, and
// returns what is to be. Begin, CountStart, Keep, Revert, Shelve, Apply, RollBack,
// Start, Succeed, Fail and Withdraw are the transitions. Layout.Do is the only way to make
// one durable: it locks the root, loads state.json, reconciles, applies the
// transition, and writes state.json (the commit point), then the links, then the
// outbox.
//
// A crash at any point leaves a pair of state and links that Reconcile repairs in
// the next Do, whoever calls it: the agent, the watchdog or a command. A report is
// written together with its transition, under an id that depends on the command
// alone. So no report is lost, and one that is sent twice counts once.
//
// Readers (Layout.Read, Tree, Inspect and Outbox.List) take no lock and change
// nothing, whatever they find. They report damage. Only a writer that holds the lock
// sets a damaged file aside.
//
// The package does not decide whether a version is healthy. No decision depends on
// a clock: times are recorded for people.
package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Schema is the newest schema of state.json. Decode accepts it and all earlier ones.
const Schema = 1

// Limits of state.json.
const (
	MaxState    = 256 << 10 // bytes
	MaxCommands = 16        // commands remembered, so that a repeated one starts nothing
	MaxAttempts = 10        // upper bound of max_boot_attempts
)

// DefaultMaxAttempts is how many starts a new version gets where the configuration
// sets no number.
const DefaultMaxAttempts = 3

// Status is the phase of an upgrade that the node is in. Operators see its values.
type Status string

const (
	// Stable: current is the version that last proved healthy.
	Stable Status = "stable"
	// StagedManual: Target is complete on disk, and an operator has to apply it.
	StagedManual Status = "staged_manual"
	// PendingHealth: current is on trial; the watchdog counts its starts.
	PendingHealth Status = "pending_health"
	// RolledBack: Target failed its trial, and current is the previous version.
	RolledBack Status = "rolled_back"
)

// State is the content of state.json. The zero State stands for a file that is
// missing or unreadable.
type State struct {
	Schema int    `json:"schema"`
	Status Status `json:"status"`
	// Good is the version that last proved healthy. The link last-good follows it.
	Good release.Version `json:"good,omitzero"`
	// Target is the version on trial, staged, or rolled back from.
	Target release.Version `json:"target,omitzero"`
	// Previous is the version that Revert returns to.
	Previous release.Version `json:"previous,omitzero"`
	// Replaces is the version whose trial went on when that of Target began, and to which
	// current still points if the swap was interrupted.
	Replaces release.Version `json:"replaces,omitzero"`
	// BootAttempts counts the service starts of Target since the swap. Only the
	// watchdog writes it. MaxBootAttempts is copied from the configuration when the
	// trial begins, because the watchdog reads no configuration.
	BootAttempts    int `json:"boot_attempts"`
	MaxBootAttempts int `json:"max_boot_attempts,omitzero"`
	// TrialID names the trial. The ids of its events derive from it, so that an
	// event that is sent twice has one id.
	TrialID   string `json:"trial_id,omitzero"`
	CommandID string `json:"command_id,omitzero"` // of the command that began the trial
	Channel   string `json:"channel,omitzero"`
	Reason    string `json:"reason,omitzero"` // of the last rollback
	// Since is when Status was reached, by the node's clock.
	Since time.Time `json:"since,omitzero"`
	// Floor is the lowest version that the node may install; see release.Policy. It
	// never decreases. FloorSequence is the sequence of its manifest; 0: not known.
	Floor         release.Version `json:"rollback_floor,omitzero"`
	FloorSequence uint64          `json:"floor_sequence,omitzero"`
	// PendingFloor and PendingFloorSequence become the floor when Target proves
	// healthy.
	PendingFloor         release.Version `json:"pending_floor,omitzero"`
	PendingFloorSequence uint64          `json:"pending_floor_sequence,omitzero"`
	// SeenAttempts is BootAttempts as the agent on trial last read it. If BootAttempts
	// has not grown since, no watchdog counted the present start.
	SeenAttempts int `json:"seen_attempts,omitzero"`
	// FailedStarts holds the cause of each failed start of Target, in order; "":
	// unknown.
	FailedStarts []string `json:"failed_starts,omitempty"`
	// Commands are the commands that are remembered, oldest first.
	Commands []Command `json:"commands,omitempty"`
	// PendingReports are those of the last transition that the outbox may not hold yet.
	// They are written together with it, so neither is lost without the other.
	PendingReports []Entry `json:"owed,omitempty"`
}

// Command is an upgrade command, and its outcome.
type Command struct {
	ID      string          `json:"id"`
	Version release.Version `json:"version,omitzero"`
	From    release.Version `json:"from,omitzero"`
	Channel string          `json:"channel,omitzero"`
	// Repair is whether an operator declared Version the repair of a node whose own check
	// fails: the check of the running version is not looked at.
	Repair bool `json:"repair,omitzero"`
	// ManifestSHA256 is that of the only manifest that the command accepts; "": any.
	ManifestSHA256 string `json:"manifest_sha256,omitzero"`
	Done           bool   `json:"done"`
	// Status is the outcome of a command that succeeded: "staged", "staged_manual" or
	// "current". Code and Error describe the failure of one that did not.
	Status string       `json:"status,omitzero"`
	Code   release.Code `json:"code,omitzero"`
	Error  string       `json:"error,omitzero"`
	// StatusSince is State.Since when the command failed. While they are equal, the failure is
	// what happened last. Zero: it did not fail, or an earlier agent wrote it.
	StatusSince time.Time `json:"status_since,omitzero"`
	// Resumed counts how often staging was resumed after a restart since the download
	// last grew. Have is the size of the download at that time, in bytes.
	Resumed int   `json:"resumed,omitzero"`
	Have    int64 `json:"have,omitzero"`
	// Wait is what the download of a command in progress waits for; nil: for nothing.
	Wait *Wait `json:"wait,omitempty"`
}

// Wait is what a download waits for.
type Wait struct {
	Reason string    `json:"reason"`         // a noun phrase
	Since  time.Time `json:"since,omitzero"` // for people, as Until
	Until  time.Time `json:"until,omitzero"` // when it gives up if nothing changes; zero: never
	// CountedSecs is how long it was retried without progress, and Have how many bytes of the
	// release were here then: see stage.Wait.
	CountedSecs int64 `json:"counted_secs,omitzero"`
	Have        int64 `json:"have,omitzero"`
	// Resumed: the command was resumed since this was recorded.
	Resumed bool `json:"resumed,omitzero"`
}

// Success reports whether the command ended, and did not fail.
func (c Command) Success() bool { return c.Done && c.Code == "" }

// Event is a step of an upgrade, as it is reported to the manager.
type Event struct {
	Code         release.Code    `json:"code"`
	Message      string          `json:"message"`
	From         release.Version `json:"from,omitzero"`
	To           release.Version `json:"to,omitzero"`
	CommandID    string          `json:"command_id,omitzero"`
	Reason       string          `json:"reason,omitzero"`
	BootAttempts int             `json:"boot_attempts,omitzero"`
	FailedStarts []string        `json:"failed_starts,omitempty"` // see State
	// Trial is what the trial of a version found that was rolled back.
	Trial *Findings `json:"trial,omitempty"`
	// Dependency is whether, after the rollback, the check of the previous version failed as
	// well: probably what the service depends on is down, and not the version at fault.
	Dependency bool `json:"dependency,omitzero"`
	// Watch is whether the agent still watches the check of the previous version, to set
	// Dependency. Meanwhile the event is not sent. Earlier agents send it.
	Watch bool `json:"watch,omitzero"`
	// Own makes it an event of the service itself, which has no code.
	Own *OwnEvent `json:"own,omitempty"`
	// Journal holds the last journal lines of a version that was rolled back.
	Journal []string `json:"journal,omitempty"`
}

// Entry is one report for the manager: an event, or the outcome of a command.
type Entry struct {
	ID    string    `json:"id"`
	Time  time.Time `json:"time"`
	Event *Event    `json:"event,omitempty"`
	Ack   *Command  `json:"ack,omitempty"`
}

// Watched reports whether e must not be sent yet; see Event.Watch.
func (e Entry) Watched() bool { return e.Event != nil && e.Event.Watch }

// entryIDs limits the ids of entries, which are part of file names.
var entryIDs = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z._-]{0,127}$`) })

// ErrNewerSchema means that a newer version of the agent wrote state.json.
var ErrNewerSchema = errors.New("written by a newer version")

// Decode parses state.json. It refuses a state that breaks a rule of the state
// machine, and drops a pending report that is damaged.
func Decode(b []byte) (State, error) {
	if len(b) > MaxState {
		return State{}, fmt.Errorf("state: %d bytes, more than %d", len(b), MaxState)
	}
	var s State
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&s); err != nil {
		return State{}, fmt.Errorf("state: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return State{}, fmt.Errorf("state: data after its end")
	}
	if s.Schema > Schema {
		return State{}, fmt.Errorf("state: schema %d: %w", s.Schema, ErrNewerSchema)
	}
	if s.Schema < 1 {
		return State{}, fmt.Errorf("state: schema is missing")
	}
	// A damaged report must not cost the others, or the trial.
	s.PendingReports = slices.DeleteFunc(s.PendingReports, func(e Entry) bool { return e.check() != nil })
	if err := s.check(); err != nil {
		return State{}, fmt.Errorf("state: %w", err)
	}
	return s, nil
}

func (s State) check() error {
	switch s.Status {
	case Stable:
	case StagedManual, RolledBack:
		if s.Target.IsZero() {
			return fmt.Errorf("status %s without target", s.Status)
		}
	case PendingHealth:
		if s.Target.IsZero() || s.Previous.IsZero() {
			return fmt.Errorf("status %s without target and previous", s.Status)
		}
		if s.Target == s.Previous {
			return fmt.Errorf("status %s with target equal to previous", s.Status)
		}
		if s.MaxBootAttempts < 1 || s.MaxBootAttempts > MaxAttempts {
			return fmt.Errorf("max_boot_attempts %d is outside 1 to %d", s.MaxBootAttempts, MaxAttempts)
		}
		if s.TrialID == "" {
			return fmt.Errorf("status %s without trial_id", s.Status)
		}
	default:
		return fmt.Errorf("status %.64q is not known", s.Status)
	}
	if s.BootAttempts < 0 {
		return fmt.Errorf("boot_attempts %d is negative", s.BootAttempts)
	}
	for _, e := range s.PendingReports {
		if err := e.check(); err != nil {
			return err
		}
	}
	return nil
}

func (e Entry) check() error {
	if !entryIDs().MatchString(e.ID) {
		return fmt.Errorf("entry id %.200q is not %s", e.ID, entryIDs())
	}
	if (e.Event == nil) == (e.Ack == nil) {
		return fmt.Errorf("entry %.128q is not one of event and ack", e.ID)
	}
	return nil
}

// OwnEvent is what an event of the service has in place of a code.
type OwnEvent struct {
	Severity release.Severity `json:"severity"`
	Category string           `json:"category"`
}
