package state

import (
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// ErrNotWithdrawn means that there is nothing that could be withdrawn, or that it is too late.
var ErrNotWithdrawn = errors.New("nothing is withdrawn")

// Withdraw ends the upgrade of a command before its swap, for the reason why, and reports
// release.Withdrawn: a command in progress, or a version that waits for an operator to apply
// it. id "" stands for whichever there is. A command that was withdrawn stays so. An error is
// ErrNotWithdrawn.
//
// What was downloaded or staged stays on the disk.
func Withdraw(s State, id, why string, now time.Time) (State, error) {
	c, known := s.Command(id)
	if id == "" {
		c = s.InProgress()
		known = c.ID != ""
	}
	switch {
	case known && !c.Done:
		return s.fail(c.ID, release.Withdrawn, fmt.Sprintf("%s the upgrade to %s; what was downloaded stays", why, c.Version), now), nil
	case known && c.Code == release.Withdrawn:
		return s, nil
	case s.Status == StagedManual && id == s.CommandID, s.Status == StagedManual && id == "":
		return withdrawStaged(s, why, now), nil
	case known && c.Code != "":
		return s, fmt.Errorf("%w: command %s has failed already (%s)", ErrNotWithdrawn, c.ID, c.Code)
	case known:
		return s, fmt.Errorf("%w: command %s is done (%s); to return to the previous version, roll back", ErrNotWithdrawn, c.ID, c.Status)
	case id == "":
		return s, fmt.Errorf("%w: no upgrade is in progress, and no version waits to be applied (status %s)", ErrNotWithdrawn, s.Status)
	}
	return s, fmt.Errorf("%w: this node knows no command %s", ErrNotWithdrawn, id)
}

// withdrawStaged withdraws the version that Shelve left for an operator.
func withdrawStaged(s State, why string, now time.Time) State {
	why = fmt.Sprintf("%s the upgrade to %s; what was staged stays", why, s.Target)
	n := atRest(s, Stable, s.Good, now)
	n.TrialID = s.TrialID
	n = n.report(now, Event{Code: release.Withdrawn, From: s.Good, To: s.Target, CommandID: s.CommandID, Message: why, Reason: why})
	n.TrialID = ""
	commands := make([]Command, len(n.Commands))
	for i, c := range n.Commands {
		if c.ID == s.CommandID {
			c.Status, c.Code, c.Error = "", release.Withdrawn, why
		}
		commands[i] = c
	}
	n.Commands = commands
	return n
}
