package state

import (
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Command returns what is recorded of the command id.
func (s State) Command(id string) (Command, bool) {
	for _, c := range s.Commands {
		if c.ID == id {
			return c, true
		}
	}
	return Command{}, false
}

// Accept records a command as taken, so that a crash during staging can be
// told from one that never came.
func Accept(s State, c Command) State {
	s.Commands = append(slices.Clone(s.Commands), c)
	if n := len(s.Commands) - MaxCommands; n > 0 {
		s.Commands = s.Commands[n:]
	}
	return s
}

// Start is Accept for a command that is taken: it also owes the event that
// tells the manager so.
func Start(s State, c Command, now time.Time) State {
	return Accept(s, c).owe(now, Event{
		Code: release.Started, From: c.From, To: c.Version, CommandID: c.ID,
		Message: fmt.Sprintf("fetching and checking %s (%s)", c.Version, c.Channel),
	})
}

// Downloaded owes the event that the tarball is complete and as it was signed.
func Downloaded(s State, id string, now time.Time) State {
	c, _ := s.Command(id)
	return s.owe(now, Event{
		Code: release.Downloaded, From: c.From, To: c.Version, CommandID: id,
		Message: fmt.Sprintf("%s is downloaded, and has the signed SHA-256", c.Version),
	})
}

// stagedManual is the outcome of a command whose version was shelved.
const stagedManual = string(StagedManual)

// Succeed records the end of a command that did what it was asked, and owes
// its ack. status is "staged", "staged_manual" or "current".
func Succeed(s State, id, status string, now time.Time) State {
	return s.end(id, now, func(c *Command) { c.Status = status })
}

// Fail records the end of a command that was refused or failed, and owes its
// ack and its event. One that has ended already keeps its outcome.
func Fail(s State, id string, code release.Code, why string, now time.Time) State {
	if c, ok := s.Command(id); ok && c.Done {
		return s
	}
	return s.fail(id, code, why, now)
}

func (s State) fail(id string, code release.Code, why string, now time.Time) State {
	var failed Command
	s = s.end(id, now, func(c *Command) {
		c.Status, c.Code, c.Error = "", code, why
		failed = *c
	})
	return s.owe(now, Event{
		Code: code, From: failed.From, To: failed.Version, CommandID: id, Message: why, Reason: why,
	})
}

func (s State) end(id string, now time.Time, change func(*Command)) State {
	s.Commands = slices.Clone(s.Commands)
	for i := range s.Commands {
		c := &s.Commands[i]
		if c.ID != id {
			continue
		}
		c.Done = true
		change(c)
		ended := *c
		s.Owed = append(s.Owed[:len(s.Owed):len(s.Owed)], Entry{ID: entryID(id, "ack"), Time: now, Ack: &ended})
	}
	return s
}

// Interrupted fails every command that was taken and never ended: the process
// that staged it is gone. Only the agent may call it, at its start.
func Interrupted(s State, now time.Time) State {
	for _, c := range s.Commands {
		if !c.Done {
			s = Fail(s, c.ID, release.Internal, "interrupted by a restart while staging; schedule it again", now)
		}
	}
	return s
}
