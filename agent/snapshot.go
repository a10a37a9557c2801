package agent

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Status is what an agent does and knows at one moment. It is a copy: nothing changes it. The
// JSON form is for the service's own page.
type Status struct {
	// Text is one line for people: what systemctl status shows.
	Text string `json:"text"`
	// Version is the version of this program.
	Version string `json:"version"`
	// Connection is the link to the manager. Its URL is empty before the first attempt, and in
	// a node without a manager.
	Connection Connection `json:"connection"`
	// NoManager means that the configuration names no manager.
	NoManager bool `json:"no_manager,omitempty"`
	// Health is the status of the health message, as the last call of the check found it:
	// wire.StatusOK or wire.StatusDegraded. "": no call has ended yet.
	Health string `json:"status,omitempty"`
	// Problem is why Health is wire.StatusDegraded.
	Problem string `json:"problem,omitempty"`
	// Warnings are those of the health message: problems of the start that the agent cannot
	// repair, and that Options.Kept has not succeeded.
	Warnings []string `json:"warnings,omitempty"`
	// Withheld is why the node accepts no upgrade now; "": it accepts them.
	Withheld string `json:"withheld,omitempty"`
	// Upgrade is the upgrade that is in progress, or that waits for a restart or an operator;
	// nil: there is none.
	Upgrade *Upgrade `json:"upgrade,omitempty"`
	// Trial is the trial of this version; nil: it is not on trial.
	Trial *Trial `json:"trial,omitempty"`
	// LastResult is what happened last: how the last upgrade ended that a manager requested, or
	// the last rollback; nil: the node remembers none, or the version is on trial.
	LastResult *LastResult `json:"last_result,omitempty"`
}

// Phase is how far an upgrade is.
type Phase string

// Phases of an upgrade, in their order.
const (
	PhaseStart    Phase = "start"      // nothing was fetched yet
	PhaseVerify   Phase = "verify"     // the manifest and its signature
	PhaseDownload Phase = "download"   // BytesDone of BytesTotal
	PhaseExtract  Phase = "extract"    // BytesDone of BytesTotal
	PhaseCheck    Phase = "check"      // of the staged version
	PhaseStaged   Phase = "staged"     // it waits for an operator: edge-agent apply
	PhaseRestart  Phase = "restarting" // current points to it: Run returns ErrRestart in a moment
)

// Upgrade is an upgrade before its trial.
type Upgrade struct {
	Version   string `json:"version"`
	CommandID string `json:"command_id,omitempty"` // of the manager; "": an operator began it
	Phase     Phase  `json:"phase"`
	// BytesDone and BytesTotal are of the phase; 0: the phase counts no bytes.
	BytesDone  int64 `json:"bytes_done,omitempty"`
	BytesTotal int64 `json:"bytes_total,omitempty"`
	// Waits is what the download waits for, as a noun phrase; "": nothing.
	Waits string `json:"waits,omitempty"`
}

// Trial is the trial of this version, and what speaks for and against the version.
type Trial struct {
	Version  string `json:"version"`
	Previous string `json:"previous"` // which a rollback starts
	// Start counts the starts of the version, and after MaxStarts it is rolled back.
	Start     int `json:"start"`
	MaxStarts int `json:"max_starts"`
	// FailedStarts are the causes of the starts that failed, in order; "": unknown.
	FailedStarts []string `json:"failed_starts,omitempty"`
	// Stage is what the version has reached in this start.
	Stage state.TrialStage `json:"stage"`
	// Since is when Stage was reached; zero: unknown.
	Since time.Time `json:"since,omitzero"`
	// Waits is what the version waits for, with the error that the last attempt had.
	Waits string `json:"waits,omitempty"`
	// CheckPassed means that the service's own check passed in some start of the trial.
	CheckPassed bool `json:"check_passed,omitempty"`
	// Rounds is how many rounds contradicted the version: the previous one reached the manager,
	// and this one did not. Link and Probe are what the last round found of the two.
	Rounds int    `json:"rounds,omitempty"`
	Link   string `json:"link,omitempty"`
	Probe  string `json:"probe,omitempty"`
}

// Outcome is how an upgrade ended.
type Outcome string

// Outcomes of an upgrade.
const (
	Completed  Outcome = "completed"   // the version was kept
	Failed     Outcome = "failed"      // it was refused, or staging failed; the version did not change
	RolledBack Outcome = "rolled_back" // after its trial, or by an operator
)

// LastResult is how an upgrade ended.
type LastResult struct {
	Outcome   Outcome      `json:"outcome"`
	Version   string       `json:"version"` // that was to run
	From      string       `json:"from,omitempty"`
	CommandID string       `json:"command_id,omitempty"`
	Code      release.Code `json:"error_code,omitempty"`
	Reason    string       `json:"reason,omitempty"`
	At        time.Time    `json:"at,omitzero"` // by the node's clock; zero: unknown
}

// Status returns what the agent does now. It reads no file, and may be called at any time, also
// before Run and by several goroutines.
func (a *Agent) Status() Status {
	s := Status{Version: a.c.version.String(), NoManager: len(a.c.URLs) == 0}
	if !a.c.Upgrade.Enabled {
		s.Withheld = "upgrades are disabled (enabled in [upgrade])"
	} else if why := a.unavailable(); why != nil {
		s.Withheld = release.Foreign(why.Error(), maxReason)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Text, s.Connection = a.status.String(), a.connection
	s.Health, s.Problem, s.Warnings = a.checked, a.problem, a.warningsNow()
	s.Upgrade, s.Trial, s.LastResult = a.upgradeNow(), trialNow(a.known, a.evidence), lastResult(a.known)
	return s
}

// upgradeNow returns Status.Upgrade. The caller holds a.mu.
func (a *Agent) upgradeNow() *Upgrade {
	u := &Upgrade{Version: a.staged.String(), Phase: PhaseStart}
	if a.stagingNow != nil {
		u.CommandID = a.stagingNow.id
	}
	select {
	case <-a.swapped:
		u.Phase = PhaseRestart
		if !a.busy || a.staged.IsZero() { // an operator pointed current to a version
			*u = Upgrade{Version: a.known.Good.String(), Phase: PhaseRestart}
		}
		return u
	default:
	}
	switch {
	case a.busy && !a.staged.IsZero():
	case a.known.Status == state.StagedManual:
		return &Upgrade{Version: a.known.Target.String(), CommandID: a.known.CommandID, Phase: PhaseStaged}
	default:
		return nil
	}
	if p := a.progress.Load(); p != nil {
		u.Phase, u.BytesDone, u.BytesTotal = Phase(p.Phase), p.BytesDone, p.BytesTotal
	}
	if h := a.waits.Load(); h != nil {
		u.Waits = release.Foreign(h.Reason, maxReason)
	}
	return u
}

// trialNow returns Status.Trial.
func trialNow(s state.State, r state.JudgeRecord) *Trial {
	if s.Status != state.PendingHealth {
		return nil
	}
	t := &Trial{
		Version: s.Target.String(), Previous: s.Previous.String(), Start: s.BootAttempts, MaxStarts: s.MaxBootAttempts,
		FailedStarts: append([]string(nil), s.FailedStarts...), Stage: state.OnTrial,
	}
	if r.TrialID == s.TrialID {
		if r.Stage != "" {
			t.Stage = r.Stage
		}
		t.Since, t.Waits, t.CheckPassed, t.Rounds, t.Link, t.Probe = r.Since, r.Waits, r.Passed, r.Rounds, r.Link, r.Probe
	}
	return t
}

// lastResult returns Status.LastResult.
func lastResult(s state.State) *LastResult {
	if s.Status == state.PendingHealth {
		return nil
	}
	_, commanded := s.Command(s.CommandID)
	for _, c := range slices.Backward(s.Commands) {
		r := &LastResult{Version: c.Version.String(), From: c.From.String(), CommandID: c.ID}
		last := c.StatusSince.Equal(s.Since)
		if c.StatusSince.IsZero() { // the position in the list alone is known
			last = s.Status != state.RolledBack || commanded
		}
		switch {
		case !c.Done:
			continue
		case s.Status == state.RolledBack && c.ID == s.CommandID:
		case c.Code != "" && last:
			r.Outcome, r.Code, r.Reason = Failed, c.Code, c.Error
			return r
		case c.Code != "" || c.Status != "staged":
			continue
		case s.Status == state.Stable && c.Version == s.Good:
			r.Outcome, r.At = Completed, s.Since
			return r
		}
		break // every command before it is older
	}
	if s.Status == state.RolledBack {
		return &LastResult{
			Outcome: RolledBack, Version: s.Target.String(), From: s.Previous.String(), CommandID: s.CommandID,
			Code: release.RolledBack, Reason: s.Reason, At: s.Since,
		}
	}
	return nil
}

// readers are the channels of Changes.
type readers struct {
	mu sync.Mutex
	// send is Agent.send once there are readers. A program that has none, as edge-agent, does
	// not link what only they need.
	send func()
	all  map[chan Status]bool
	last Status    // that was sent
	at   time.Time // when
}

// Changes returns a channel that has the present Status, and then the newest one whenever it
// has changed. A reader that is slow misses what is outdated. The agent never waits for it, and
// keeps one value for it. The channel is closed when ctx is done, which is not at the end of
// Run.
func (a *Agent) Changes(ctx context.Context) <-chan Status {
	c := make(chan Status, 1)
	r := &a.readers
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = a.Status()
	c <- r.last
	if r.all == nil {
		r.all, r.send = map[chan Status]bool{}, a.send
	}
	r.all[c] = true
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.all, c)
		close(c)
	})
	return c
}

// publishEvery is how often readers get the progress of a phase.
const publishEvery = 200 * time.Millisecond

// publish sends the present Status to the readers, if it is a new one. The caller does not
// hold a.mu.
func (a *Agent) publish() { a.publishAfter(0) }

// publishAfter is publish unless the last one was less than pause ago.
func (a *Agent) publishAfter(pause time.Duration) {
	r := &a.readers
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.send != nil && time.Since(r.at) >= pause {
		r.send()
	}
}

// send is publish with the lock of the readers.
func (a *Agent) send() {
	r := &a.readers
	s := a.Status()
	if reflect.DeepEqual(s, r.last) {
		return
	}
	r.last, r.at = s, time.Now()
	for c := range r.all {
		select { // only this function sends, and it holds r.mu
		case <-c:
		default:
		}
		c <- s
	}
}

// setConnection makes c the state of the link to the manager.
func (a *Agent) setConnection(c Connection) {
	a.setStatus(func(w *statusText) {
		w.manager = c.String()
		a.connection = c
	})
}

// setKnown records what was read of state.json.
func (a *Agent) setKnown(s state.State) {
	a.mu.Lock()
	a.known = s
	a.mu.Unlock()
}

// showTrial shows how the trial of s goes, with what a judge found.
func (a *Agent) showTrial(s state.State, r state.JudgeRecord) {
	r.TrialID = s.TrialID
	a.mu.Lock()
	same := a.evidence == r
	a.evidence = r
	a.mu.Unlock()
	if !same {
		a.publish()
	}
}
