package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/trial"
)

// judgedTrial is a trial that a judge decides, in the first start that a watchdog recorded.
type judgedTrial struct {
	*onTrial
	began time.Time
	check func(age time.Duration) error // of the version; nil: it is well
	link  func(age time.Duration) bool  // whether a session begins now; nil: never
	probe trial.Old                     // what last-good's probe finds; "": OldFailed
	later time.Duration                 // until this age it finds OldFailed
	swap  state.SwapRecord
}

func newJudged(t *testing.T, dir string) *judgedTrial {
	t.Helper()
	j := &judgedTrial{onTrial: newTrial(t, dir), began: time.Now()}
	l, s := j.c.Layout, j.res.State
	j.c.Check = func(context.Context) error {
		if j.check == nil {
			return nil
		}
		return j.check(time.Since(j.began))
	}
	j.swap = state.SwapRecord{TrialID: s.TrialID, From: s.Previous, Probe: true, Answered: true}
	marker := fmt.Sprintf(`{"version":%q,"program":"app","commands":["probe"]}`, s.Previous)
	if err := errors.Join(os.WriteFile(filepath.Join(l.Version(s.Previous), stage.Marker), []byte(marker), 0o644),
		l.RecordSwap(j.swap), l.RecordStarts(state.StartsRecord{TrialID: s.TrialID, Number: 1})); err != nil {
		t.Fatal(err)
	}
	return j
}

// connectAs takes the part of Agent.connect. A session that begins is held.
func (j *judgedTrial) connectAs(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		if j.link != nil && j.link(time.Since(j.began)) {
			j.tries.authenticated(nil)
			time.Sleep(heldFor)
			j.tries.heard()
			<-ctx.Done()
			return
		}
		j.tries.ended(j.c.URLs[0], began, errors.New("connection refused"))
		select {
		case <-ctx.Done():
		case <-j.tries.wake:
		case <-time.After(20 * time.Second):
		}
	}
}

// decide runs the judge until it decides, or limit is over.
func (j *judgedTrial) decide(t *testing.T, limit time.Duration) (took time.Duration, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	judge := j.judged(j.res, j.began)
	if judge == nil {
		t.Fatal("no judge")
	}
	judge.probe = func(ctx context.Context, _ time.Time) (trial.Old, string) {
		select {
		case <-ctx.Done():
		case <-time.After(heldFor):
		}
		if j.probe == "" || time.Since(j.began) < j.later {
			return trial.OldFailed, "failed at tcp"
		}
		return j.probe, "reached " + string(j.probe)
	}
	if len(j.c.URLs) > 0 {
		go j.connectAs(ctx)
	}
	err = judge.run(ctx)
	took = time.Since(j.began)
	cancel()
	synctest.Wait()
	return took, err
}

func (j *judgedTrial) codes(t *testing.T) (codes []release.Code) {
	t.Helper()
	entries, _, err := j.c.Layout.Outbox().List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Event != nil {
			codes = append(codes, e.Event.Code)
		}
	}
	return codes
}

func (j *judgedTrial) ready() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Contains(j.notified, "READY=1")
}

// The window is 60 s, the hold 10 s, and a session proves the link after 10 s.
func TestTheJudge(t *testing.T) {
	t.Parallel()
	sick := errors.New("no disk")
	always := func(time.Duration) bool { return true }
	for name, tt := range map[string]struct {
		check     func(age time.Duration) error
		link      func(age time.Duration) bool
		probe     trial.Old
		accept    bool
		noManager bool
		stall     time.Duration // of the machine, when it is ready
		limit     time.Duration // 10 minutes
		want      state.TrialStage
		kept      bool
		completed bool
		ends      string // the error; "": none
		took      time.Duration
	}{
		"healthy": {link: always, kept: true, completed: true, took: 60 * time.Second},
		"under guard, and stopped": {link: always, limit: 30 * time.Second,
			want: state.UnderGuard, completed: true, took: 30 * time.Second},
		"no manager in reach": {want: state.Unproven, took: 10 * time.Minute},
		"the manager is back after five minutes": {link: func(age time.Duration) bool { return age > 5*time.Minute },
			kept: true, completed: true, took: 5*time.Minute + 10*time.Second},
		"an operator accepted it": {accept: true, kept: true, completed: true, took: 60 * time.Second},
		"no manager":              {noManager: true, kept: true, completed: true, took: 60 * time.Second},
		"its check fails":         {check: func(time.Duration) error { return sick }, link: always, ends: "its own check fails: no disk", took: 60 * time.Second},
		"its check fails, accepted": {check: func(time.Duration) error { return sick }, accept: true,
			ends: "its own check fails: no disk", took: 60 * time.Second},
		"its check flaps": {check: func(age time.Duration) error {
			if int(age.Seconds())%8 == 0 {
				return sick
			}
			return nil
		}, link: always, ends: "its own check", took: 60 * time.Second},
		"its check first passes when the window ends": {check: func(age time.Duration) error {
			if age < 55*time.Second {
				return sick
			}
			return nil
		}, link: always, kept: true, completed: true, took: 65 * time.Second},
		"the machine stands still once it is ready": {stall: 2 * time.Minute, link: always, kept: true, completed: true, took: 2 * time.Minute},
		"its check fails later, for a window": {check: func(age time.Duration) error {
			if age > 200*time.Second {
				return sick
			}
			return nil
		}, want: state.Unproven, ends: "no disk", took: 260 * time.Second},
		"its check fails under guard, and the version with it": {check: func(age time.Duration) error {
			if age > 20*time.Second {
				return sick
			}
			return nil
		}, link: always, want: state.OnTrial, completed: true, ends: "no disk", took: 80 * time.Second},
		"last-good reaches the manager": {probe: trial.OldHeld, want: state.OnTrial,
			ends: "1.1.0 did not prove healthy in 2 rounds: 1.0.0 reached the manager, and this version did not, before and after: wss://manager.example: connection refused", took: 40 * time.Second},
		"last-good does not answer any more":     {probe: trial.OldSilent, want: state.Unproven, took: 10 * time.Minute},
		"no child can be started":                {probe: trial.OldUnable, want: state.OnTrial, ends: "it cannot start a child process", took: 25 * time.Second},
		"accepted although last-good reaches it": {probe: trial.OldHeld, accept: true, kept: true, completed: true, took: 60 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				j := newJudged(t, dir)
				l, s := j.c.Layout, j.res.State
				j.check, j.link, j.probe = tt.check, tt.link, tt.probe
				if tt.noManager {
					j.c.URLs = nil
				}
				j.calls.notify.limit = time.Hour // the whole machine stands still, not only Notify
				j.onReady = func() { time.Sleep(tt.stall) }
				if tt.accept {
					if err := l.RecordAccept(state.AcceptRecord{TrialID: s.TrialID, At: time.Now()}); err != nil {
						t.Fatal(err)
					}
				}
				limit := tt.limit
				if limit == 0 {
					limit = 10 * time.Minute
				}
				took, err := j.decide(t, limit)
				if err == nil && tt.ends != "" || err != nil && (tt.ends == "" || !strings.Contains(err.Error(), tt.ends)) {
					t.Errorf("it ends with: %v", err)
				}
				if took < tt.took-time.Second || took > tt.took+12*time.Second {
					t.Errorf("after %v, want %v", took, tt.took)
				}
				res, err := l.Read()
				if err != nil || (res.State.Status == state.Stable) != tt.kept || (res.Tree.LastGood == j.c.version) != tt.kept {
					t.Errorf("%+v, last-good %s, %v", res.State, res.Tree.LastGood, err)
				}
				if codes := j.codes(t); slices.Contains(codes, release.Completed) != tt.completed {
					t.Errorf("events %q", codes)
				}
				if tt.want != "" && l.ReadJudge(s).Stage != tt.want {
					t.Errorf("it reached %+v", l.ReadJudge(s))
				}
				if sickFromTheStart := tt.check != nil && tt.check(0) != nil && tt.check(59*time.Second) != nil; j.ready() == sickFromTheStart {
					t.Errorf("ready: %t", j.ready())
				}
			})
		})
	}
}

// The upgrade is reported as completed once, whatever the number of starts, and a version
// that was kept on a disk that took no record before is reported then.
func TestCompletedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := newJudged(t, dir)
		j.link = func(time.Duration) bool { return true }
		if _, err := j.decide(t, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := j.c.Layout.RecordStarts(state.StartsRecord{TrialID: j.res.State.TrialID, Number: 2}); err != nil {
			t.Fatal(err)
		}
		j.tries, j.began = newTries(), time.Now()
		if _, err := j.decide(t, 5*time.Minute); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, c := range j.codes(t) {
			if c == release.Completed {
				n++
			}
		}
		if res, err := j.c.Layout.Read(); n != 1 || err != nil || res.State.Status != state.Stable {
			t.Errorf("%d reports, %+v, %v", n, res.State, err)
		}
	})
}

// Six contradicting rounds of a trial end it, in three starts; the record survives each.
func TestContradictionsAreKeptAcrossStarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := newJudged(t, dir)
		j.probe = trial.OldHeld
		for start := 1; start <= 3; start++ {
			if err := j.c.Layout.RecordStarts(state.StartsRecord{TrialID: j.res.State.TrialID, Number: start}); err != nil {
				t.Fatal(err)
			}
			j.tries, j.began = newTries(), time.Now()
			if _, err := j.decide(t, 5*time.Minute); err == nil {
				t.Fatal("it goes on")
			}
			if r := j.c.Layout.ReadJudge(j.res.State); r.Rounds != 2*start || r.Probe == "" || r.Link == "" {
				t.Errorf("start %d: %+v", start, r)
			}
		}
	})
}

// Earlier rules apply without the facts of the trial, and where last-good has no probe.
func TestWithoutAProbeEarlierRulesApply(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(j *judgedTrial) error{
		"no marker":     func(j *judgedTrial) error { return os.Remove(filepath.Join(j.c.Layout.LastGood(), stage.Marker)) },
		"another trial": func(j *judgedTrial) error { j.res.State.TrialID = "another"; return nil },
		"no facts":      func(j *judgedTrial) error { return j.c.Layout.ForgetTrials(state.State{}) },
		"attached":      func(j *judgedTrial) error { j.attached = &attached{}; return nil },
	} {
		j := newJudged(t, t.TempDir())
		if j.judged(j.res, time.Now()) == nil {
			t.Fatal("no judge")
		}
		if err := spoil(j); err != nil {
			t.Fatal(err)
		}
		if j.judged(j.res, time.Now()) != nil {
			t.Errorf("%s: a judge", name)
		}
	}
}

// What an unproven version reached is recorded once the disk has space again, and where the
// watchdog could not record the start.
func TestUnprovenIsRecordedInTheEnd(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(dir string) (mend func()){
		"a full disk for twenty minutes": func(dir string) func() {
			file := filepath.Join(dir, "judge.json")
			os.MkdirAll(filepath.Join(file, "in the way"), 0o755)
			return func() { os.RemoveAll(file) }
		},
		"no record of the start": func(dir string) func() {
			os.Remove(filepath.Join(dir, "starts.json"))
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				j := newJudged(t, dir)
				trial, err := filepath.Glob(filepath.Join(dir, "trial", "*"))
				if err != nil || len(trial) != 1 {
					t.Fatal(trial, err)
				}
				time.AfterFunc(20*time.Minute, spoil(trial[0]))
				if _, err := j.decide(t, 40*time.Minute); err != nil {
					t.Fatal(err)
				}
				if l := j.c.Layout; !l.MayReplace(j.res.State) || l.Reached(j.res.State) != state.Unproven {
					t.Errorf("it reached %+v", l.ReadJudge(j.res.State))
				}
			})
		})
	}
}

// A check forks a program, perhaps: an unproven version is asked less often after ten minutes.
func TestAnUnprovenVersionIsCheckedLessOften(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := newJudged(t, dir)
		checks := 0
		j.check = func(time.Duration) error { checks++; return nil }
		if _, err := j.decide(t, time.Hour); err != nil || checks > 600+50*4+10 || checks < 600+50*4-10 {
			t.Errorf("%d checks in an hour, %v", checks, err)
		}
	})
}

// Contradictions before a session that was held were chance.
func TestAProvenLinkClearsContradictions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := newJudged(t, dir)
		j.probe = trial.OldHeld
		j.link = func(age time.Duration) bool { return age > 28*time.Second }
		if _, err := j.decide(t, 5*time.Minute); err != nil {
			t.Fatal(err)
		}
		if r := j.c.Layout.ReadJudge(j.res.State); r.Rounds != 0 {
			t.Errorf("%+v", r)
		}
	})
}
