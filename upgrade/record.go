package upgrade

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// isAttached reports whether the service of a root is another unit than its agent, as far as
// its config.toml says. ok is false if that cannot be read.
func isAttached(l state.Layout) (attached, ok bool) {
	c, _, err := config.Open(l.ConfigFile())
	return err == nil && c.Service.Unit != "", err == nil
}

// baseline is what is known before a swap: in linked mode, of last-good's link to the
// manager.
type baseline struct {
	lastGood release.Version
	attached bool
	manager  state.Manager
	answered bool // its probe gave an answer, whatever it was, or was not started for want of memory
	words    string
}

// baselineLimit bounds the probe before a swap, so that a dead line delays no repair.
const baselineLimit = 20 * time.Second

// probeBefore tries the link once with the probe of last-good. Whatever that finds, or if
// there is none, refuses nothing.
func probeBefore(ctx context.Context, l state.Layout) baseline {
	t, err := l.Tree()
	if err != nil {
		return baseline{words: err.Error()}
	}
	b := baseline{lastGood: t.LastGood}
	if b.manager, err = l.ReadManager(); err != nil {
		b.words = err.Error()
		return b
	}
	if !stage.HasProbe(l, b.lastGood) || !b.manager.Probe {
		return b
	}
	run := stage.Probe(ctx, l, b.lastGood, stage.ProbeArgs{Keys: stage.ProbeKeys(b.manager.Key), Limit: baselineLimit})
	b.answered, b.words = run.Answered || run.Skipped, run.Words()
	return b
}

// attachedBaseline is the baseline of a service that is another unit than its agent.
func attachedBaseline(l state.Layout) baseline {
	b := baseline{attached: true}
	if t, err := l.Tree(); err == nil {
		b.lastGood = t.LastGood
	}
	return b
}

// baseline is probeBefore, beside what a Swap does before it ends.
func (p *Pipeline) baseline(ctx context.Context, end End) <-chan baseline {
	out := make(chan baseline, 1)
	switch l := p.c.Node.Layout; {
	case end != Swap:
		out <- baseline{}
	case p.c.Node.Service.Unit != "":
		out <- attachedBaseline(l)
	default:
		go func() { out <- probeBefore(ctx, l) }()
	}
	return out
}

// recordTrial records that a trial begins, before it does. Without the record each start
// counts, so an error is a note and no reason to refuse.
func recordTrial(l state.Layout, id string, b baseline) (note string) {
	if err := l.RecordSwap(state.SwapRecord{
		TrialID: id, From: b.lastGood, Attached: b.attached, ManagerKey: b.manager.Key, Probe: b.manager.Probe, Answered: b.answered, Baseline: b.words,
	}); err != nil {
		return "each start of the version on trial will count, whatever ends it: " + err.Error()
	}
	return ""
}
