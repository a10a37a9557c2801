package main

import (
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/trial"
)

// trialReport is the evidence about a version on trial so far, and what the agent waits for.
type trialReport struct {
	Stage          state.TrialStage `json:"stage,omitzero"` // trial, guard or unproven; none after a rollback
	WaitsFor       string           `json:"waits_for,omitzero"`
	Since          time.Time        `json:"since,omitzero"` // of the stage
	FirstStartSecs int              `json:"first_start_secs,omitzero"`
	// Contradictions is in how many rounds last-good's probe reached the manager between two
	// failures of the version; at MaxContradictions the version is rolled back.
	Contradictions    int    `json:"contradictions"`
	MaxContradictions int    `json:"max_contradictions"`
	Link              string `json:"link,omitzero"`         // of the version, in the last of them
	Probe             string `json:"probe,omitzero"`        // of last-good, in the same round
	ProbeBefore       string `json:"probe_before,omitzero"` // of last-good, before the swap
	Check             string `json:"check,omitzero"`        // of an attached service, in the last round of checks
	Dependency        string `json:"dependency,omitzero"`   // of it, in the same round
	attached          bool
	Accepted          bool `json:"accepted,omitzero"` // by an operator, without the proof of its link
}

// trialOf returns nil without a trial, and for one that a judge did not look at yet. Of one
// that ended in a rollback it has what was found.
func trialOf(l state.Layout, s state.State) *trialReport {
	found := l.Findings(s)
	if found == nil {
		return nil
	}
	rep := &trialReport{
		Contradictions: found.Contradictions, MaxContradictions: trial.Default.Rounds, Link: found.Link, Probe: found.Probe, ProbeBefore: found.ProbeBefore,
		Check: found.Check, Dependency: found.Dependency,
	}
	r := l.ReadJudge(s)
	switch {
	case s.Status == state.RolledBack:
		return rep
	case s.Status != state.PendingHealth || r.Stage == "":
		return nil
	}
	rep.Stage, rep.WaitsFor, rep.Since, rep.Accepted = l.Reached(s), r.Waits, r.Since, l.Accepted(s)
	swap, _ := l.ReadSwap(s)
	rep.attached = swap.Attached
	rep.FirstStartSecs = int(stage.FirstStartOf(l, s.Target).Seconds())
	return rep
}

// summary is the summary of a running version on trial.
func (r *trialReport) summary(s state.State) string {
	switch r.Stage {
	case state.UnderGuard:
		return fmt.Sprintf("%s proved healthy, and is kept at the end of its first health window; until then %s returns if it ends by itself.", s.Target, s.Previous)
	case state.Unproven:
		if r.attached {
			return fmt.Sprintf("%s runs unproven: it serves, and waits for %s. %s stays the way back.", s.Target, r.WaitsFor, s.Previous)
		}
		return fmt.Sprintf("%s runs unproven: its check held, and its link to the manager is neither proven nor disproven. It serves, and %s stays the way back. To keep it without that proof: edge-agent accept.", s.Target, s.Previous)
	}
	return fmt.Sprintf("%s is on trial (start %d of %d); if it does not prove healthy, %s returns.", s.Target, s.BootAttempts, s.MaxBootAttempts, s.Previous)
}

func (r *trialReport) table(row func(string, any)) {
	if r == nil {
		return
	}
	text := string(r.Stage)
	if r.Accepted {
		text += ", accepted by an operator"
	}
	if text != "" {
		row("trial", text)
	}
	for _, line := range [][2]string{{"waits for", r.WaitsFor}, {"probe before", r.ProbeBefore}} {
		if line[1] != "" {
			row(line[0], line[1])
		}
	}
	if r.FirstStartSecs > 0 {
		row("first start", fmt.Sprintf("may take %d s until the check first passes", r.FirstStartSecs))
	}
	if r.Contradictions > 0 {
		row("contradicted", fmt.Sprintf("%d of %d times: the previous version reached the manager, and the target did not", r.Contradictions, r.MaxContradictions))
	}
	for _, line := range [][2]string{{"target's link", r.Link}, {"previous version", r.Probe}, {"own check", r.Check}, {"dependency", r.Dependency}} {
		if line[1] != "" {
			row(line[0], line[1])
		}
	}
}
