package upgrade

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
)

// isOwnAgent reports whether the service of a root is its own agent, as far as its
// config.toml says. In attached mode a start ends for other reasons, and each counts.
func isOwnAgent(l state.Layout) bool {
	c, _, err := config.Open(l.ConfigFile())
	return err == nil && c.Service.Unit == ""
}

// baseline is what is known, before a swap, of last-good's link to the manager.
type baseline struct {
	lastGood release.Version
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

// baseline is probeBefore, beside what a Swap does before it ends.
func (p *Pipeline) baseline(ctx context.Context, end End) <-chan baseline {
	out := make(chan baseline, 1)
	if end != Swap || p.c.Node.Service.Unit != "" {
		out <- baseline{}
		return out
	}
	go func() { out <- probeBefore(ctx, p.c.Node.Layout) }()
	return out
}

// recordTrial records that a trial begins, before it does. Without the record each start
// counts, so an error is a note and no reason to refuse.
func recordTrial(l state.Layout, id string, b baseline) (note string) {
	if err := l.RecordSwap(state.SwapRecord{
		TrialID: id, From: b.lastGood, ManagerKey: b.manager.Key, Probe: b.manager.Probe, Answered: b.answered, Baseline: b.words,
	}); err != nil {
		return "each start of the version on trial will count, whatever ends it: " + err.Error()
	}
	return ""
}
