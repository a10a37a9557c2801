package watchdog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

// deny is a disk that is full for the changes that it names.
type deny func(fsutil.Op) bool

func (d deny) Change(op fsutil.Op, make func() error) error {
	if d(op) {
		return unix.ENOSPC
	}
	return make()
}

// A start that ran well clears the counts once, also if the record of some of the next ones cannot
// be written: a version that crashes from then on is rolled back.
func TestGoodMinutesClearTheCountsOnce(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func(n int) bool{
		"each one":    func(int) bool { return true },
		"the first":   func(n int) bool { return n == 1 },
		"the second":  func(n int) bool { return n == 2 },
		"each second": func(n int) bool { return n%2 == 1 },
	} {
		l := recorded(t, 3)
		watchdog.RunAfter(t.Context(), l, restarts(0))
		judge(t, l, state.JudgeRecord{Ready: true, Calm: true})
		full := l.On(fsutil.Disk{Seam: deny(func(op fsutil.Op) bool {
			return op.Kind != fsutil.OpRemove && op.Kind != fsutil.OpRemoveAll && strings.Contains(op.Path, "/trial/")
		})})
		n := 1
		for ; n < 20; n++ {
			at := l
			if fails(n) {
				at = full
			}
			if watchdog.RunAfter(t.Context(), at, restarts(n)).Reverted {
				break
			}
		}
		if n != 3 {
			t.Errorf("the record of %s fails: rolled back after %d crashes", name, n)
		}
	}
}

// A copy of the credentials that cannot be removed fails no change of the root, and is not put over
// what is there by then.
func TestACopyOfTheCredentialsThatStays(t *testing.T) {
	t.Parallel()
	l := recorded(t, 1)
	write := func(text string) {
		if err := os.WriteFile(l.CredentialsFile(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good")
	if err := l.RecordSwap(state.SwapRecord{TrialID: "c", From: v1}); err != nil {
		t.Fatal(err)
	}
	watchdog.RunAfter(t.Context(), l, restarts(0))
	stuck := l.On(fsutil.Disk{Seam: deny(func(op fsutil.Op) bool {
		return op.Kind == fsutil.OpRemoveAll && strings.HasSuffix(op.Path, "credentials.json")
	})})
	if rep := watchdog.RunAfter(t.Context(), stuck, restarts(1)); !rep.Reverted || len(rep.Errs) > 0 || len(rep.Notes) == 0 {
		t.Errorf("%+v", rep)
	}
	if _, err := stuck.Do(t.Context(), nil); err != nil {
		t.Error(err)
	}
	write("registered again")
	if _, err := stuck.Do(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(l.CredentialsFile()); string(b) != "registered again" {
		t.Errorf("credentials.json is %q", b)
	}
}

// What a version did to the credentials is undone after its rollback, also if the disk was full
// then: for everything, or for the credentials alone.
func TestCredentialsComeBackLater(t *testing.T) {
	t.Parallel()
	for name, denied := range map[string]deny{
		"everything":      func(op fsutil.Op) bool { return op.Kind == fsutil.OpWrite && filepath.Base(op.Path) != "start" },
		"the credentials": func(op fsutil.Op) bool { return strings.Contains(op.Path+op.To, "credentials") },
	} {
		l := recorded(t, 1)
		write := func(text string) {
			if err := os.WriteFile(l.CredentialsFile(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("good")
		if err := l.RecordSwap(state.SwapRecord{TrialID: "c", From: v1}); err != nil {
			t.Fatal(err)
		}
		watchdog.RunAfter(t.Context(), l, restarts(0))
		write("")
		full := l.On(fsutil.Disk{Seam: denied})
		if rep := watchdog.RunAfter(t.Context(), full, restarts(1)); !rep.Reverted {
			t.Fatalf("%s: %+v", name, rep)
		}
		full.Do(t.Context(), nil) // as the agent does when it starts
		if res, err := full.Read(); err != nil {
			t.Fatal(err)
		} else if err := full.ForgetTrials(res.State); err != nil {
			t.Fatal(err)
		}
		for range 2 { // there is space again; what is written afterwards stays
			res, err := l.Do(t.Context(), nil)
			if b, _ := os.ReadFile(l.CredentialsFile()); string(b) != "good" || err != nil || res.State.Status != state.RolledBack {
				t.Errorf("%s: credentials.json is %q (%s, %v)", name, b, res.State.Status, err)
			}
		}
		write("renewed")
		if _, err := l.Do(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(l.CredentialsFile()); string(b) != "renewed" {
			t.Errorf("%s: credentials.json is %q, not the renewed one", name, b)
		}
	}
}
