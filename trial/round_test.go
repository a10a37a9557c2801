package trial

import "testing"

// The sixth contradiction ends a trial in whatever start it comes, and an answer of the probe
// ends a row of rounds without one.
func TestRound(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		link   Link
		proven bool
		old    Old
		probed bool
		want   Link
		result Verdict
	}{
		"the first contradiction":          {Link{}, false, OldHeld, true, Link{Rounds: 1, Total: 1}, Continue},
		"the second of a start":            {Link{Rounds: 1, Total: 3}, false, OldHeld, true, Link{Rounds: 2, Total: 4}, Contradicted},
		"the sixth, the first of a start":  {Link{Total: 5}, false, OldHeld, true, Link{Rounds: 1, Total: 6}, Contradicted},
		"proven":                           {Link{Rounds: 1, Total: 5}, true, OldHeld, true, Link{Proven: true, Rounds: 1}, Continue},
		"no answer, which was known":       {Link{Mute: 1}, false, OldSilent, false, Link{Mute: 2}, Unanswered},
		"no answer any more":               {Link{Mute: 7}, false, OldSilent, true, Link{Mute: 8}, Continue},
		"an answer between two without":    {Link{Mute: 1}, false, OldFailed, false, Link{}, Continue},
		"a full success between two":       {Link{Mute: 1}, false, OldHeld, false, Link{Rounds: 1, Total: 1}, Continue},
		"a child that cannot be started":   {Link{Total: 2}, false, OldUnable, true, Link{Total: 2}, Exhausted},
		"the previous version fails, also": {Link{Rounds: 1, Total: 1}, false, OldFailed, true, Link{Rounds: 1, Total: 1}, Continue},
	} {
		if got, result := Default.Round(tt.link, tt.proven, tt.old, tt.probed); got != tt.want || result != tt.result {
			t.Errorf("%s: %+v, %q", name, got, result)
		}
	}
}
