// Package state is what a node knows about its own upgrade: the state machine
// (pure), state.json, the links and directories under the install root, and
// the outbox of events that the manager has not yet seen. It is the only
// place that knows paths.
//
// The one entry for a change is Layout.Do: lock, load, Reconcile, change,
// then write state.json (the commit point), then the links, then the outbox.
// A crash anywhere leaves a (state, links) pair that Reconcile settles at the
// next start, whoever starts: agent, watchdog or command line.
//
// It does not judge whether a version is healthy, and reads no clock for a
// decision: times are recorded for people.
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

// Schema is the newest schema of state.json; Decode takes it and all before.
const Schema = 1

// Limits of state.json.
const (
	MaxState    = 256 << 10 // bytes
	MaxCommands = 16        // outcomes kept, so that a repeated command starts nothing
	MaxAttempts = 10        // upper bound of max_boot_attempts
)

// DefaultMaxAttempts is how many starts a new version gets, if the
// configuration does not say.
const DefaultMaxAttempts = 3

// Status names where the node stands in an upgrade. Operators know the words.
type Status string

const (
	// Stable: current is the version that last proved healthy.
	Stable Status = "stable"
	// StagedManual: Target is complete on disk and waits for an operator.
	StagedManual Status = "staged_manual"
	// PendingHealth: current is on trial; the watchdog counts its starts.
	PendingHealth Status = "pending_health"
	// RolledBack: Target failed its trial, and current is the version before.
	RolledBack Status = "rolled_back"
)

// State is state.json. The zero State means that it was missing or unreadable.
type State struct {
	Schema int    `json:"schema"`
	Status Status `json:"status"`
	// Good is the version that last proved healthy; last-good follows it.
	Good release.Version `json:"good,omitzero"`
	// Target is the version on trial, staged, or rolled back from.
	Target release.Version `json:"target,omitzero"`
	// Previous is where a revert goes.
	Previous release.Version `json:"previous,omitzero"`
	// BootAttempts counts the service starts of Target since the swap; written
	// only by the watchdog. MaxBootAttempts is the configuration's, taken when
	// the trial began: the watchdog reads no configuration.
	BootAttempts    int `json:"boot_attempts"`
	MaxBootAttempts int `json:"max_boot_attempts,omitzero"`
	// TrialID names the trial; the ids of its events derive from it, so that
	// one told twice is told once.
	TrialID   string `json:"trial_id,omitzero"`
	CommandID string `json:"command_id,omitzero"` // that began the trial
	Channel   string `json:"channel,omitzero"`
	Reason    string `json:"reason,omitzero"` // of the last rollback
	// Since is when Status was reached, by the node's clock, for people.
	Since time.Time `json:"since,omitzero"`
	// Floor only rises: see release.Policy. The pending ones become the floor
	// when Target proves healthy.
	Floor         release.Version `json:"rollback_floor,omitzero"`
	FloorSequence uint64          `json:"floor_sequence,omitzero"`
	PendingFloor  release.Version `json:"pending_floor,omitzero"`
	// PendingFloorSequence is that of the manifest of PendingFloor; 0: not known.
	PendingFloorSequence uint64 `json:"pending_floor_sequence,omitzero"`
	// SeenAttempts is BootAttempts as the agent on trial last saw it: a start in
	// which it has not grown was not counted by a watchdog.
	SeenAttempts int `json:"seen_attempts,omitzero"`
	// FailedStarts says why each start of Target failed, in order; "" where
	// nobody knows.
	FailedStarts []string `json:"failed_starts,omitempty"`
	// Commands are the last outcomes, oldest first.
	Commands []Command `json:"commands,omitempty"`
	// Owed is what the last transition has to tell and the outbox may not hold
	// yet. It is written with the transition, so neither is lost without the other.
	Owed []Entry `json:"owed,omitempty"`
}

// Command is an upgrade command and what became of it.
type Command struct {
	ID      string          `json:"id"`
	Version release.Version `json:"version,omitzero"`
	From    release.Version `json:"from,omitzero"`
	Channel string          `json:"channel,omitzero"`
	Done    bool            `json:"done"`
	// Status is the outcome of one that succeeded: "staged", "staged_manual" or
	// "current". Code and Error are those of one that failed.
	Status string       `json:"status,omitzero"`
	Code   release.Code `json:"code,omitzero"`
	Error  string       `json:"error,omitzero"`
	// Resumed counts the restarts during staging after which it was begun again,
	// since the download last grew; Have is how many bytes it then had.
	Resumed int   `json:"resumed,omitzero"`
	Have    int64 `json:"have,omitzero"`
}

// Success reports whether the command ended well.
func (c Command) Success() bool { return c.Done && c.Code == "" }

// Event is something that happened in an upgrade.
type Event struct {
	Code         release.Code    `json:"code"`
	Message      string          `json:"message"`
	From         release.Version `json:"from,omitzero"`
	To           release.Version `json:"to,omitzero"`
	CommandID    string          `json:"command_id,omitzero"`
	Reason       string          `json:"reason,omitzero"`
	BootAttempts int             `json:"boot_attempts,omitzero"`
	FailedStarts []string        `json:"failed_starts,omitempty"` // see State
	// Journal are the last lines of a version that was rolled back.
	Journal []string `json:"journal,omitempty"`
}

// Entry is one thing to tell the manager: an event, or a command's outcome.
type Entry struct {
	ID    string    `json:"id"`
	Time  time.Time `json:"time"`
	Event *Event    `json:"event,omitempty"`
	Ack   *Command  `json:"ack,omitempty"`
}

// entryIDs bounds ids of entries: they name files.
var entryIDs = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z._-]{0,127}$`) })

// ErrNewerSchema says that a newer version of the agent wrote state.json.
var ErrNewerSchema = errors.New("written by a newer version")

// Decode reads state.json and checks what the state machine relies on.
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
		return State{}, fmt.Errorf("state: more bytes after its end")
	}
	if s.Schema > Schema {
		return State{}, fmt.Errorf("state: schema %d: %w", s.Schema, ErrNewerSchema)
	}
	if s.Schema < 1 {
		return State{}, fmt.Errorf("state: schema is missing")
	}
	// One bad entry does not cost the others, nor the trial.
	s.Owed = slices.DeleteFunc(s.Owed, func(e Entry) bool { return e.check() != nil })
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
	for _, e := range s.Owed {
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
