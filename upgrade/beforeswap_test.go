package upgrade

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// The version under guard is kept after BeforeSwap: what that did holds no more, so it is called
// again before the commit. Where it never holds, the upgrade is refused, and nothing is swapped.
func TestBeforeSwapIsCalledAgain(t *testing.T) {
	for name, never := range map[string]bool{"it holds then": false, "it never holds": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := nodeWith(t, "0.9.0", "")
			p := pipeline(t, &n, trusted(t, nil))
			if err := fromStick(t, p, "1.0.0", Swap); err != nil {
				t.Fatal(err)
			}
			res, err := n.Layout.Read()
			judge := state.JudgeRecord{Stage: state.UnderGuard, Completed: true, TrialID: res.State.TrialID, Start: 1}
			if err = errors.Join(err, n.Layout.RecordStarts(state.StartsRecord{TrialID: judge.TrialID, Number: 1}), n.Layout.RecordJudge(judge)); err != nil {
				t.Fatal(err)
			}
			var seen []state.Status
			p.c.BeforeSwap = func(context.Context, release.Version) (func() bool, error) {
				res, err := n.Layout.Read()
				seen = append(seen, res.State.Status)
				do(t, n.Layout, func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
					s, tr = state.KeepCompleted(s, tr, release.MustVersion("1.0.0"), now)
					return s, tr, nil
				})
				return func() bool {
					now, err := n.Layout.Read()
					return err == nil && now.State.SameTrial(res.State) && !never
				}, err
			}
			err = ways[0].run(t, p, "1.1.0")
			after, _ := n.Layout.Read()
			if never {
				if release.CodeOf(err) != release.InProgress || after.Tree.Current != release.MustVersion("1.0.0") || len(seen) != 3 {
					t.Errorf("%v after %d calls; current is %s", err, len(seen), after.Tree.Current)
				}
				return
			}
			if err != nil || after.State.Status != state.PendingHealth || after.State.Previous != release.MustVersion("1.0.0") {
				t.Errorf("%v: %+v", err, after.State)
			}
			if swap, ok := n.Layout.ReadSwap(after.State); !ok || swap.From != release.MustVersion("1.0.0") {
				t.Errorf("the trial is judged by the probe of %s, but it rolls back to %s", swap.From, after.State.Previous)
			}
			if len(seen) != 2 || seen[0] != state.PendingHealth || seen[1] != state.Stable {
				t.Errorf("BeforeSwap was called while %v", seen)
			}
		})
	}
}
