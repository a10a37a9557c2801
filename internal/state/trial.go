package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
)

// The facts of a trial are in files of their own, since two versions write state.json in
// turn during a trial, and the older one drops what it does not know. Each file has one
// writer, and names its trial. A trial without the first of them is judged as by earlier
// versions: each start counts.
//
//	trial/<hash of the trial's id>/swap.json     written by the version that swaps
//	                               starts.json   written by the watchdog
//	                               judge.json    written by the agent on trial
//	                               accepted.json written by an operator's command
//	                               credentials.json a copy, made at the swap

// SwapRecord is what was known when a trial began.
type SwapRecord struct {
	TrialID string          `json:"trial_id"`
	From    release.Version `json:"from"` // last-good
	// Attached means that the service is another unit than its agent.
	Attached bool `json:"attached,omitzero"`
	// ManagerKey and Probe are what the last session of From showed of the manager: its key,
	// and whether it answers probes.
	ManagerKey string `json:"manager_key,omitzero"`
	Probe      bool   `json:"probe,omitzero"`
	// Answered is whether the probe of From gave an answer before the swap, whatever it
	// was; Baseline is that answer, in words.
	Answered bool   `json:"answered,omitzero"`
	Baseline string `json:"baseline,omitzero"`
}

// StartsRecord is what the watchdog knows of the starts of a trial, besides
// State.BootAttempts: that is one more than the starts that count against the version.
type StartsRecord struct {
	TrialID string `json:"trial_id"`
	// Number is how often the version was started, the present start included.
	Number int `json:"starts"`
	// Excused is how many starts ended by the machine or an operator, and were not
	// counted, since the version last ran well for ten minutes.
	Excused int `json:"excused"`
	// BootID and Restarts are those of the present start: the boot, and how often systemd
	// had restarted the service by itself before it (NRestarts).
	BootID   string `json:"boot_id"`
	Restarts int    `json:"n_restarts"`
	// Invocation is the id of the present start in systemd; "" if it is not known yet.
	Invocation string `json:"invocation,omitzero"`
	// NotMade means that systemd did not make the present start, and not for a fault of the
	// version: it ends without being counted, or excused.
	NotMade bool `json:"not_made,omitzero"`
	// Ends says how each start ended, oldest first.
	Ends []StartEnd `json:"ends,omitempty"`
}

// StartEnd is how one start of a version on trial ended.
type StartEnd struct {
	How     string `json:"how"`
	Counted bool   `json:"counted"`
}

// maxEnds bounds StartsRecord.Ends.
const maxEnds = 40

// Ended returns r with the end of its present start.
func (r StartsRecord) Ended(e StartEnd) StartsRecord {
	e.How = release.Foreign(e.How, maxCause)
	r.Ends = append(r.Ends[max(0, len(r.Ends)-maxEnds+1):len(r.Ends):len(r.Ends)], e)
	return r
}

// JudgeRecord is what the agent on trial knows of its trial.
type JudgeRecord struct {
	TrialID string `json:"trial_id"`
	// Start is the StartsRecord.Number that the two fields below belong to.
	Start int  `json:"start"`
	Ready bool `json:"ready,omitzero"` // the version's own check passed
	Calm  bool `json:"calm,omitzero"`  // it ran well for ten minutes
	// Passed means that the check passed in some start of the trial.
	Passed bool `json:"passed,omitzero"`
	// Rounds is how many rounds of the trial contradicted the version (trial.Link).
	Rounds int `json:"rounds,omitzero"`
	// Stage is what the version reached in the start: see TrialStage.
	Stage TrialStage `json:"stage,omitzero"`
	// Completed means that the upgrade was reported as completed.
	Completed bool `json:"completed,omitzero"`
	// Waits is what the version waits for, and Since when that began, by the node's clock.
	Waits string    `json:"waits,omitzero"`
	Since time.Time `json:"since,omitzero"`
	// Link and Probe are what the last round found, in words: of the version's own link, and
	// of last-good's probe.
	Link  string `json:"link,omitzero"`
	Probe string `json:"probe,omitzero"`

	// The fields below are of attached mode.

	// Before is the start of the service that ran when the trial began.
	Before string `json:"before,omitzero"`
	// Boot is the id of the boot, as the agent's sandbox shows it, in which the last start
	// was seen.
	Boot string `json:"boot_id,omitzero"`
	// Failed is how many rounds of checks failed in the start FailedIn, and FailedAt the age of
	// that start, in milliseconds, when the last of them began.
	Failed   int    `json:"failed,omitzero"`
	FailedIn string `json:"failed_in,omitzero"`
	FailedAt int64  `json:"failed_at_ms,omitzero"`
	// For how many quarters of a window nothing started the service (Quiet), it was between two
	// starts (Between), and the trial was looked at (Looked).
	Quiet   int `json:"quiet,omitzero"`
	Between int `json:"between,omitzero"`
	Looked  int `json:"looked,omitzero"`
	// Ends is the start that must end, since the agent set current back.
	Ends string `json:"ends,omitzero"`
	// Mended means that the agent ended itself before the first start of the trial, so that
	// systemd starts what serves requests.
	Mended bool `json:"mended,omitzero"`
	// Check and Dependency are what the last round found, in words.
	Check      string `json:"check,omitzero"`
	Dependency string `json:"dependency,omitzero"`
}

// InStart returns r for the start with that number: of an earlier one only what holds for the
// whole trial.
func (r JudgeRecord) InStart(number int) JudgeRecord {
	if r.Start == number {
		return r
	}
	return JudgeRecord{
		TrialID: r.TrialID, Start: number, Passed: r.Passed, Rounds: r.Rounds, Completed: r.Completed, Link: r.Link, Probe: r.Probe,
		Before: r.Before, Boot: r.Boot, Ends: r.Ends, Check: r.Check, Dependency: r.Dependency,
		Failed: r.Failed, FailedIn: r.FailedIn, FailedAt: r.FailedAt, Looked: r.Looked,
	}
}

// TrialStage is what a version on trial has reached in its present start.
type TrialStage string

const (
	// OnTrial: it has not proved healthy yet.
	OnTrial TrialStage = "trial"
	// UnderGuard: it proved healthy, and is kept at the end of its first health window.
	UnderGuard TrialStage = "guard"
	// Unproven: its own check held, and its link to the manager is neither proven nor
	// disproven. It serves. Rolling back means last-good.
	Unproven TrialStage = "unproven"
)

// MayReplace reports whether a newer version may take the place of the one on trial in s,
// which is under guard or unproven.
func (l Layout) MayReplace(s State) bool { return l.Reached(s) != OnTrial }

// Reached returns what the version on trial in s has reached in its present start.
func (l Layout) Reached(s State) TrialStage {
	r := l.ReadJudge(s)
	starts, _ := l.ReadStarts(s) // 0 where the watchdog could not record it
	if r.Start == starts.Number && (r.Stage == UnderGuard || r.Stage == Unproven) {
		return r.Stage
	}
	return OnTrial
}

const (
	maxTrialFile = 64 << 10 // bytes
	maxRounds    = 1000     // of JudgeRecord; more of them are damage
)

func (l Layout) trialDir(id string) string {
	return filepath.Join(l.path(trialName), strings.TrimSuffix(entryID(id, ""), "."))
}

// AcceptRecord is an operator's decision that the version on trial needs no proof of its link
// to the manager.
type AcceptRecord struct {
	TrialID string    `json:"trial_id"`
	At      time.Time `json:"at"` // by the node's clock
}

// makeTrial creates the directory of a trial.
func (l Layout) makeTrial(id string) error {
	return errors.Join(l.disk.Mkdir(l.path(trialName), 0o700), l.disk.Mkdir(l.trialDir(id), 0o700))
}

// RecordSwap records that a trial begins, and keeps a copy of the credentials.
func (l Layout) RecordSwap(r SwapRecord) error {
	if err := l.makeTrial(r.TrialID); err != nil {
		return err
	}
	b, err := fsutil.ReadFile(l.CredentialsFile(), maxTrialFile)
	if err == nil {
		err = l.disk.WriteFile(l.TrialCredentials(r.TrialID), b, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.writeTrial(r.TrialID, swapName, r)
}

// RecordAccept records that an operator accepted the version on trial.
func (l Layout) RecordAccept(r AcceptRecord) error {
	if err := l.makeTrial(r.TrialID); err != nil {
		return err
	}
	return l.writeTrial(r.TrialID, acceptedName, r)
}

// Accepted reports whether an operator accepted the version on trial in s.
func (l Layout) Accepted(s State) bool {
	var r AcceptRecord
	return s.Status == PendingHealth && l.readTrial(s.TrialID, acceptedName, &r) && r.TrialID == s.TrialID && !r.At.IsZero()
}

// ReadSwap returns the record of the trial in s, and false if there is none that can be
// read.
func (l Layout) ReadSwap(s State) (SwapRecord, bool) {
	if s.Status != PendingHealth {
		return SwapRecord{}, false
	}
	return l.swapOf(s.TrialID)
}

// swapOf returns the record of the trial with that id, which may be over.
func (l Layout) swapOf(id string) (SwapRecord, bool) {
	var r SwapRecord
	ok := l.readTrial(id, swapName, &r) && r.TrialID == id
	return r, ok // in two statements: the order within one is not specified
}

// RecordStarts replaces the watchdog's record of a trial.
func (l Layout) RecordStarts(r StartsRecord) error { return l.writeTrial(r.TrialID, startsName, r) }

// ForgetStarts removes it: then each start counts.
func (l Layout) ForgetStarts(s State) error {
	return l.disk.Discard(filepath.Join(l.trialDir(s.TrialID), startsName))
}

// ReadStarts returns the watchdog's record of the trial in s, and false if there is none
// that can be read.
func (l Layout) ReadStarts(s State) (StartsRecord, bool) {
	var r StartsRecord
	ok := l.readTrial(s.TrialID, startsName, &r) && r.TrialID == s.TrialID && r.Number > 0 && r.Excused >= 0
	if !ok {
		return StartsRecord{TrialID: s.TrialID}, false
	}
	return r, true
}

// RecordJudge replaces the agent's record of a trial.
func (l Layout) RecordJudge(r JudgeRecord) error { return l.writeTrial(r.TrialID, judgeName, r) }

// ReadJudge returns the agent's record of the trial in s; its zero value if there is none
// that can be read.
func (l Layout) ReadJudge(s State) JudgeRecord {
	var r JudgeRecord
	if !l.readTrial(s.TrialID, judgeName, &r) || r.TrialID != s.TrialID || r.Rounds < 0 || r.Rounds > maxRounds {
		return JudgeRecord{TrialID: s.TrialID}
	}
	return r
}

func (l Layout) writeTrial(id, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxTrialFile {
		return fmt.Errorf("%s: %d bytes, more than %d", name, len(b), maxTrialFile)
	}
	return l.disk.WriteFile(filepath.Join(l.trialDir(id), name), b, 0o600)
}

func (l Layout) readTrial(id, name string, v any) bool {
	b, err := fsutil.ReadFile(filepath.Join(l.trialDir(id), name), maxTrialFile)
	return err == nil && json.Unmarshal(b, v) == nil
}

// Findings are what a trial found, besides the cause of each failed start.
type Findings struct {
	// Contradictions is in how many rounds last-good's probe reached the manager between two
	// failures of the version.
	Contradictions int `json:"contradictions,omitzero"`
	// Link is what the version's own last attempt found of its link, in words; Probe is what
	// last-good's probe found in the same round, and ProbeBefore what it found before the swap.
	Link        string `json:"link,omitzero"`
	Probe       string `json:"probe,omitzero"`
	ProbeBefore string `json:"probe_before,omitzero"`
	// Check and Dependency are what the last round of checks of an attached service found.
	Check      string `json:"check,omitzero"`
	Dependency string `json:"dependency,omitzero"`
	// NotCounted is how each start ended that did not count against the version, oldest first.
	NotCounted []string `json:"not_counted,omitempty"`
}

// Findings returns what was found so far in the trial in s, which may have ended in a
// rollback; nil if no facts of it can be read.
func (l Layout) Findings(s State) *Findings {
	swap, ok := l.swapOf(s.TrialID)
	if s.TrialID == "" || !ok {
		return nil
	}
	judged := l.ReadJudge(s)
	f := Findings{Contradictions: judged.Rounds, Link: judged.Link, Probe: judged.Probe, ProbeBefore: swap.Baseline, Check: judged.Check, Dependency: judged.Dependency}
	starts, _ := l.ReadStarts(s)
	for _, e := range starts.Ends {
		if !e.Counted {
			f.NotCounted = append(f.NotCounted, e.How)
		}
	}
	return &f
}

// failedItsCheck reports whether the check of an attached service ended the last start of the
// trial in s. Something that both versions depend on may be down then.
func (l Layout) failedItsCheck(s State) bool {
	swap, ok := l.ReadSwap(s)
	starts, known := l.ReadStarts(s)
	judged := l.ReadJudge(s)
	return ok && swap.Attached && judged.Failed >= trial.Attached.RoundsPerStart && (!known || starts.Invocation == judged.FailedIn)
}

// reportFindings adds f to the report of the rollback that s has just recorded, and whether
// it waits for what the agent sees of the previous version.
func (s State) reportFindings(f *Findings, watch bool) State {
	s.PendingReports = slices.Clone(s.PendingReports)
	for i := len(s.PendingReports) - 1; i >= 0; i-- {
		if e := s.PendingReports[i].Event; e != nil && e.Code == release.RolledBack {
			found := *e
			found.Trial, found.Watch = f, watch
			s.PendingReports[i].Event = &found
			break
		}
	}
	return s
}

// ForgetTrials removes the records of every trial but that of s. Of one that was rolled back
// the findings stay, for people; and the copy of credentials.json, until Do has restored it.
func (l Layout) ForgetTrials(s State) error {
	entries, err := os.ReadDir(l.path(trialName))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	keep := ""
	var errs []error
	switch {
	case s.Status == PendingHealth:
		keep = filepath.Base(l.trialDir(s.TrialID))
	case s.Status == RolledBack && s.TrialID != "":
		keep = filepath.Base(l.trialDir(s.TrialID))
	}
	for _, e := range entries {
		if e.Name() != keep {
			errs = append(errs, l.disk.Discard(filepath.Join(l.path(trialName), e.Name())))
		}
	}
	return errors.Join(errs...)
}
