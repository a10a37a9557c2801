package state

import (
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Command returns the record of a command, and whether there is one.
func (s State) Command(id string) (Command, bool) {
	for _, c := range s.Commands {
		if c.ID == id {
			return c, true
		}
	}
	return Command{}, false
}

// Accept records a command. After a crash during staging the record is found, and
// the command is resumed.
func Accept(s State, c Command) State {
	s.Commands = forgetDone(append(slices.Clone(s.Commands), c))
	return s
}

// forgetDone removes the oldest commands that have ended, down to MaxCommands. It
// keeps the one that is in progress.
func forgetDone(commands []Command) []Command {
	for i := 0; i < len(commands) && len(commands) > MaxCommands; {
		if commands[i].Done {
			commands = slices.Delete(commands, i, i+1)
		} else {
			i++
		}
	}
	return commands
}

// Start records a command that the node carries out, and reports it as started.
func Start(s State, c Command, now time.Time) State {
	return Accept(s, c).report(now, Event{
		Code: release.Started, From: c.From, To: c.Version, CommandID: c.ID,
		Message: fmt.Sprintf("fetching and checking %s (%s)", c.Version, c.Channel) + asRepair(c.Repair),
	})
}

// Downloaded reports that the tarball of a command is complete and has the signed
// SHA-256. A command that has ended, or is forgotten, has had its last report.
func Downloaded(s State, id string, now time.Time) State {
	c, ok := s.Command(id)
	if !ok || c.Done {
		return s
	}
	return s.report(now, Event{
		Code: release.Downloaded, From: c.From, To: c.Version, CommandID: id,
		Message: fmt.Sprintf("%s is downloaded, and has the signed SHA-256", c.Version),
	})
}

// stagedManual is the outcome of a command whose version an operator has to apply.
const stagedManual = string(StagedManual)

// Succeed ends a command that succeeded, and reports its outcome: "staged",
// "staged_manual" or "current".
func Succeed(s State, id, status string, now time.Time) State {
	return s.end(id, now, func(c *Command) { c.Status = status })
}

// Fail ends a command that was refused or failed, and reports its outcome and an
// event. A command that has ended keeps its outcome.
func Fail(s State, id string, code release.Code, why string, now time.Time) State {
	if c, ok := s.Command(id); ok && c.Done {
		return s
	}
	return s.fail(id, code, why, now)
}

func (s State) fail(id string, code release.Code, why string, now time.Time) State {
	var failed Command
	s = s.end(id, now, func(c *Command) {
		c.Status, c.Code, c.Error, c.StatusSince = "", code, why, s.Since
		failed = *c
	})
	return s.report(now, Event{
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
		c.Done, c.Wait = true, nil
		change(c)
		ended := *c
		s.PendingReports = append(s.PendingReports[:len(s.PendingReports):len(s.PendingReports)], Entry{ID: entryID(id, "ack"), Time: now, Ack: &ended})
	}
	return s
}

// maxResumed is how often a command is resumed without progress. A command that ends
// the process each time must not do so for ever.
const maxResumed = 5

// Waiting records what the download of a command in progress waits for; nil: for nothing.
func Waiting(s State, id string, w *Wait) State {
	s.Commands = slices.Clone(s.Commands)
	for i := range s.Commands {
		if c := &s.Commands[i]; c.ID == id && !c.Done {
			c.Wait = w
		}
	}
	return s
}

// InProgress returns the command that is in progress, or a zero Command.
func (s State) InProgress() Command {
	for _, c := range s.Commands {
		if !c.Done {
			return c
		}
	}
	return Command{}
}

// Resume returns the command whose staging a restart interrupted, or a zero Command.
// have is the number of bytes downloaded. A command that was interrupted too often
// without progress fails, unless each time it waited for its download. Only the agent may
// call it, when it starts.
func Resume(s State, have int64, now time.Time) (State, Command) {
	for i, c := range s.Commands {
		if c.Done {
			continue
		}
		waited := c.Wait != nil && !c.Wait.Resumed
		if have > c.Have || waited {
			c.Resumed = 0
		}
		if c.Resumed >= maxResumed || c.Version.IsZero() {
			why := fmt.Sprintf("interrupted by %d restarts while staging, without progress; schedule it again", c.Resumed+1)
			return Fail(s, c.ID, release.Internal, why, now), Command{}
		}
		s.Commands = slices.Clone(s.Commands)
		s.Commands[i].Resumed, s.Commands[i].Have = c.Resumed+1, have
		if waited {
			wait := *c.Wait
			wait.Resumed = true
			s.Commands[i].Wait = &wait
		}
		return s, s.Commands[i]
	}
	return s, Command{}
}
