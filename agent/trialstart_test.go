package agent

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
)

func TestAReadyStartIsRecorded(t *testing.T) {
	t.Parallel()
	for _, check := range []error{nil, errors.New("no disk")} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			o := newTrial(t, dir)
			o.c.Check = func(context.Context) error { return check }
			l, s := o.c.Layout, o.res.State
			if err := errors.Join(l.RecordSwap(state.SwapRecord{TrialID: s.TrialID, From: s.Previous}),
				l.RecordStarts(state.StartsRecord{TrialID: s.TrialID, Number: 2})); err != nil {
				t.Fatal(err)
			}
			o.run(t, nil)
			if r := l.ReadJudge(s); r.Ready != (check == nil) || r.Ready && r.Start != 2 {
				t.Errorf("check %v: %+v", check, r)
			}
		})
	}
}

func TestAnAcceptedVersionNeedsNoLink(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		trial string        // the trial that is accepted
		after time.Duration // the start
		check error
		kept  bool
		want  time.Duration
	}{
		"before the trial":    {"", 0, nil, true, 10 * time.Second},
		"during the trial":    {"", 20 * time.Second, nil, true, 30 * time.Second},
		"its own check fails": {"", 0, errors.New("no disk"), false, time.Minute},
		"of another trial":    {"another", 0, nil, false, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				o := newTrial(t, dir)
				o.c.Check = func(context.Context) error { return tt.check }
				accept := func() {
					if err := o.c.Layout.RecordAccept(state.AcceptRecord{TrialID: cmp.Or(tt.trial, o.res.State.TrialID), At: time.Now()}); err != nil {
						t.Error(err)
					}
				}
				if tt.after == 0 {
					accept()
				}
				took, err := o.run(t, func() {
					if time.Sleep(tt.after); tt.after > 0 {
						accept()
					}
				})
				if (err == nil) != tt.kept || took < tt.want || took > tt.want+2*time.Second {
					t.Errorf("%v after %v, want %v", err, took, tt.want)
				}
				res, err := o.c.Layout.Read()
				if err != nil || (res.State.Status == state.Stable) != tt.kept || (res.Tree.LastGood == o.c.version) != tt.kept {
					t.Errorf("%+v, %+v, %v", res.State, res.Tree, err)
				}
				entries, _, err := o.c.Layout.Outbox().List()
				if err != nil || tt.kept && !strings.Contains(entries[len(entries)-1].Event.Message, "an operator accepted it") {
					t.Errorf("%+v, %v", entries, err)
				}
			})
		})
	}
}

func TestACalmStartIsRecorded(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fails time.Duration // the check fails once at this age; 0: never
		want  bool
	}{
		"without a break": {0, true},
		"with a break":    {8 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				o := newTrial(t, dir)
				l, s := o.c.Layout, o.res.State
				if err := errors.Join(l.RecordSwap(state.SwapRecord{TrialID: s.TrialID}), l.RecordStarts(state.StartsRecord{TrialID: s.TrialID, Number: 4})); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				o.c.Check = func(context.Context) error {
					if age := time.Since(began); tt.fails > 0 && age >= tt.fails && age < tt.fails+2*time.Second {
						return errors.New("a moment")
					}
					return nil
				}
				o.run(t, func() {
					for range 36 { // 12 minutes
						o.setManagerFault(&busyError{why: "the manager answers 503"})
						time.Sleep(20 * time.Second)
					}
				})
				if r := l.ReadJudge(s); r.Calm != tt.want || !r.Ready || r.Start != 4 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

func TestAFirstStartThatTakesLong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ready  time.Duration // after the start
		passed bool          // in an earlier start
		want   time.Duration // how long the trial takes
		kept   bool
	}{
		"in time":                   {5 * time.Minute, false, 5*time.Minute + 10*time.Second, true},
		"too late":                  {11 * time.Minute, false, 10 * time.Minute, false},
		"it passed before":          {5 * time.Minute, true, time.Minute, false},
		"at once, and then no more": {0, false, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				o := newTrial(t, dir)
				l, s := o.c.Layout, o.res.State
				if err := errors.Join(os.WriteFile(filepath.Join(l.Version(o.c.version), state.ReleaseFile), []byte(`{"version":"1.1.0","first_start_secs":600}`), 0o600),
					l.RecordSwap(state.SwapRecord{TrialID: s.TrialID}), l.RecordStarts(state.StartsRecord{TrialID: s.TrialID, Number: 1}),
					l.RecordJudge(state.JudgeRecord{TrialID: s.TrialID, Passed: tt.passed})); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				o.c.Check = func(context.Context) error {
					if age := time.Since(began); age < tt.ready || tt.ready == 0 && age > time.Second {
						return errors.New("it migrates")
					}
					return nil
				}
				o.setAuthenticated(true)
				took, err := o.run(t, nil)
				if (err == nil) != tt.kept || took < tt.want || took > tt.want+2*time.Second {
					t.Errorf("%v after %v, want %v", err, took, tt.want)
				}
				if tt.passed == o.said("EXTEND_TIMEOUT_USEC=660000000") || !o.said("EXTEND_TIMEOUT_USEC=70000000") {
					t.Errorf("systemd got %q", o.notified)
				}
			})
		})
	}
}
