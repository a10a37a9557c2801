package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/trial"
)

// roundFound is what one round found: the version on trial tried its link, then the probe
// of last-good did, then the version tried again.
type roundFound struct {
	held        bool // one of the two tries of the version was
	old         trial.Old
	link, probe string // what the two found, in words
}

// maxRoundWords bounds what is said of one side of a round, in bytes.
const maxRoundWords = 600

// ask makes a round every quarter of a window, until one of this version's sessions is held,
// or ctx is done.
func (j *judge) ask(ctx context.Context, out chan<- roundFound) {
	tick := time.NewTicker(j.a.c.Window / 4) // it drops ticks during a round that takes longer
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		found := j.makeRound(ctx)
		select {
		case <-ctx.Done():
			return
		case out <- found:
		}
		if found.held {
			return
		}
	}
}

func (j *judge) makeRound(ctx context.Context) (f roundFound) {
	began := time.Now()
	if f.held, f.link = j.tryLink(ctx); f.held || ctx.Err() != nil {
		return f
	}
	if f.old, f.probe = j.probe(ctx, began); f.old == trial.OldUnable || ctx.Err() != nil {
		return f
	}
	f.held, f.link = j.tryLink(ctx)
	return f
}

// tryLink has this version try its link, and says what it found.
func (j *judge) tryLink(ctx context.Context) (held bool, words string) {
	held, why := j.a.tries.try(ctx, j.a.c.URLs)
	if held {
		return true, "the session was held"
	}
	return false, release.Foreign(why.Error(), maxRoundWords)
}

// probeOld has the probe of last-good try the link. It may authenticate, with the
// credentials from before the swap, only if the manager knew probes then; and only to the
// manager of that session, or to one that this version accepted since the round began.
func (j *judge) probeOld(ctx context.Context, began time.Time) (trial.Old, string) {
	if !j.swap.Probe {
		return trial.OldFailed, "not tried: in the last session before the upgrade the manager did not announce that it knows probes"
	}
	args := stage.ProbeArgs{Credentials: j.a.c.Layout.TrialCredentials(j.res.State.TrialID), Limit: limit(probeOverhead)*5/4 + pace(heldFor)}
	if j.swap.ManagerKey != "" {
		args.Keys = stage.ProbeKeys(append(j.a.tries.keysSince(began), j.swap.ManagerKey)...)
	}
	run := stage.Probe(ctx, j.a.c.Layout, j.swap.From, args)
	switch {
	case run.Unable:
		return trial.OldUnable, run.Words()
	case run.Held():
		return trial.OldHeld, run.Words()
	case run.Answered, run.Skipped:
		return trial.OldFailed, run.Words()
	}
	return trial.OldSilent, run.Words()
}

// judgeRound applies the rules to a round. An error ends the start.
func (j *judge) judgeRound(f roundFound) error {
	from, before := j.swap.From, j.link
	j.round = f
	if before.Proven || j.accepted { // meanwhile
		return nil
	}
	if f.held {
		j.proven()
		return nil
	}
	link, verdict := trial.Default.Round(before, false, f.old, j.swap.Answered)
	j.link = link
	log := j.log.With("link", f.link, "last_good", from.String(), "probe", f.probe, "probe_result", string(f.old))
	evidence := func(r *state.JudgeRecord) { r.Rounds, r.Link, r.Probe = link.Total, f.link, f.probe }
	if link.Total == before.Total && time.Since(j.wrote) < j.every() {
		evidence(&j.record) // with the next record
	} else { // a contradiction must be on disk before the start ends
		j.note(evidence)
	}
	if link.Total > before.Total {
		log.Warn("the previous version reached the manager between two failures of this one", "contradictions", link.Total, "of", trial.Default.Rounds)
	} else {
		log.Warn("this version has no link to the manager, and the previous one does not contradict it")
	}
	switch verdict {
	case trial.Contradicted: // what matters first: the text is cut where it is too long
		return j.failed(fmt.Sprintf("in %d rounds: %s reached the manager, and this version did not, before and after: %s", link.Rounds, from, f.link))
	case trial.Exhausted:
		return j.failed("since it cannot start a child process: " + f.probe)
	case trial.Unanswered:
		return j.failed(fmt.Sprintf("in %d rounds: the probe of %s gives no answer, as before the upgrade (%s), and this version did not reach the manager: %s", link.Mute, from, f.probe, f.link))
	}
	return nil
}
