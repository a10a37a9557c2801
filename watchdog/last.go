package watchdog

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/trial"
)

// askFor bounds what the watchdog asks systemd before it takes the lock. Without an
// answer a start in the same boot counts.
const askFor = 5 * time.Second

// last is what the watchdog knows, before it takes the lock, of the last start of the
// version on trial. The zero value stands for a root without a trial.
type last struct {
	trial  string // the trial's id
	rules  trial.Rules
	judged bool // the trial has records: see state.SwapRecord
	known  bool // the watchdog's record of the last start can be read
	starts state.StartsRecord
	judge  state.JudgeRecord
	end    trial.End
	cause  string // how it ended, as systemd says

	boot       string
	restarts   int    // for the record of the present start; -1: unknown
	invocation string // of the present start; "": unknown
}

// look gathers what is known of the last start. own is whether this process belongs to
// the service's unit. It does not ask how the start ended unless counts is true.
func look(ctx context.Context, l state.Layout, systemd Systemd, own, counts bool) (f last) {
	defer func() {
		if own {
			f.invocation = systemd.invocation()
		}
	}()
	res, err := l.Read()
	s := res.State
	if err != nil || s.Status != state.PendingHealth {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	f = last{trial: s.TrialID, boot: cmp.Or(systemd.Boot, state.BootID()), restarts: -1}
	n, err := -1, errors.New("unknown")
	var swap state.SwapRecord
	if swap, f.judged = l.ReadSwap(s); f.judged {
		if f.rules = trial.Default; swap.Attached {
			f.rules = trial.Attached
		}
		f.starts, f.known = l.ReadStarts(s)
		f.judge = l.ReadJudge(s)
		if systemd.Restarts != nil {
			n, err = systemd.Restarts(ctx)
		}
	}
	if counts && s.BootAttempts > 0 && systemd.LastEnd != nil {
		f.cause = systemd.LastEnd(ctx)
	}
	f.end = trial.End{How: trial.Unknown}
	if f.known && f.judge.Start == f.starts.Number {
		f.end.Ready, f.end.Calm = f.judge.Ready, f.judge.Calm
	}
	switch {
	case !f.known:
	case f.starts.NotMade:
		f.end = trial.End{How: trial.ByOperator, Ready: true} // as little as one that an operator ended
	case f.boot != f.starts.BootID && f.boot != "" && f.starts.BootID != "":
		f.end.How = trial.ByMachine
	case err != nil:
	case own && n > 0, !own && n > 0 && n != f.starts.Restarts:
		f.end.How = trial.ByItself
	default:
		f.end.How = trial.ByOperator
	}
	switch {
	case err != nil:
	case !own && s.BootAttempts == 0:
		// If a job makes this start, as after an upgrade, systemd clears n when the service
		// itself starts, and may reach n again. It stays unknown until correct, so that an end
		// before that counts.
	case !own && f.end.How == trial.ByOperator:
		f.restarts = 0 // systemd clears it when the service itself starts
	default:
		f.restarts = n
	}
	return f
}

// past returns what the starts of the trial in s amount to, and a function that records
// the present one, or nil.
func (f last) past(l state.Layout, s state.State, t state.Tree, rep *Report) (state.Past, func() error) {
	p := state.EachCounts(s, f.cause)
	if !f.judged || s.Status != state.PendingHealth || s.TrialID != f.trial || t.Current != s.Target {
		return p, nil // as earlier versions count
	}
	r := f.starts
	if s.BootAttempts > 0 {
		f.end.Noted = s.Noted()
		counts, counted := f.rules.Count(trial.Counts{Faults: s.BootAttempts - 1, Excused: r.Excused}, f.end)
		rep.LastEnd, rep.LastCounts = f.how(s), counted
		r = r.Ended(state.StartEnd{How: rep.LastEnd, Counted: counted})
		r.Excused = counts.Excused
		p = state.Past{Faults: counts.Faults, Over: f.rules.Over(counts, s.MaxBootAttempts, f.rounds(l, s)), Cleared: f.end.Calm}
		if counted {
			p.Cause = cmp.Or(f.cause, rep.LastEnd)
		}
	}
	r.TrialID, r.Number, r.BootID, r.Restarts, r.NotMade, r.Invocation = s.TrialID, max(r.Number, f.judge.Start)+1, f.boot, f.restarts, false, f.invocation
	record := func() error {
		err := l.RecordStarts(r)
		if err != nil { // the one before would judge a later start by what an earlier one did
			err = errors.Join(err, l.ForgetStarts(s))
		}
		return err
	}
	switch {
	case p.Over:
		return p, nil
	case s.BootAttempts == 0:
		// A power cut between the count and its record finds the record of the start before, and
		// so another boot. The first start has none before it: its record comes first.
		err := record()
		return p, func() error { return err }
	}
	return p, record
}

// rounds is how many rounds contradict the version. Where an operator accepted it, they do not
// count.
func (f last) rounds(l state.Layout, s state.State) int {
	if l.Accepted(s) {
		return 0
	}
	return f.judge.Rounds
}

// how says in words how the last start ended.
func (f last) how(s state.State) string {
	if f.end.Noted {
		return s.FailedStarts[s.BootAttempts-1]
	}
	if f.starts.NotMade {
		return "systemd did not make the start"
	}
	switch f.end.How {
	case trial.ByItself:
		return cmp.Or(f.cause, "the service ended, and systemd restarted it")
	case trial.ByOperator:
		return "an operator, or another unit, restarted the service"
	case trial.ByMachine:
		return "the machine was rebooted, or lost its power"
	}
	return cmp.Or(f.cause, "systemd did not say how it ended")
}

// correct completes the record of a start that the watchdog's own unit counted: only in
// the service's unit does systemd say how often it restarted the service, and which start
// it is.
func (f last) correct(l state.Layout) {
	if f.known && (f.restarts >= 0 && f.restarts != f.starts.Restarts || f.invocation != f.starts.Invocation) {
		if f.starts.Invocation = f.invocation; f.restarts >= 0 {
			f.starts.Restarts = f.restarts
		}
		l.RecordStarts(f.starts) // if this fails, the next start may count
	}
}

// invocation returns the id of the start that is counted.
func (s Systemd) invocation() string { return cmp.Or(s.Invocation, os.Getenv("INVOCATION_ID")) }

// restarts returns what Restarts returns, and 0 if that is unknown.
func (s Systemd) restarts(ctx context.Context) int {
	if s.Restarts == nil {
		return 0
	}
	n, err := s.Restarts(ctx)
	if err != nil {
		return 0
	}
	return n
}
