package stage

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// An operator who requests a version that does not exist sees that within seconds, and until
// when the host is asked again.
func TestAMissingReleaseIsToldEarly(t *testing.T) {
	t.Parallel()
	published.once.Do(func() { published.err = publishAll() })
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(line{rate: 1e6})
		s := over(t, l, root, nil)
		began := time.Now()
		var told []Wait
		s.SetPatience(Patience{Limit: 24 * time.Hour, Waiting: func(w Wait) {
			if told = append(told, w); len(told) == 1 && time.Since(began) > 5*time.Second {
				t.Errorf("told after %v", time.Since(began))
			}
			if end := time.Since(began) + w.Left; w.Away || !strings.Contains(w.Reason, "is the version published") || end < DefaultMissingFor || end > DefaultMissingFor+time.Minute {
				t.Errorf("%+v", w)
			}
		}})
		if _, err := bring(t, s, "7.7.7"); code(err) != release.NetworkError || len(told) < 6 {
			t.Errorf("told %d times: %v", len(told), err)
		}
	})
}

// A device without a clock begins each start at the same time: what an earlier start recorded
// may lie ahead. Since is never later than now, and does not follow a clock that is set.
func TestAWaitDoesNotBeginInTheFuture(t *testing.T) {
	t.Parallel()
	for name, ago := range map[string]time.Duration{"ahead": -time.Hour, "long ago": 50 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
			})
			s.Tries = 2
			began := time.Now()
			since := began.Round(0).Add(-ago) // without a monotonic reading
			s.SetPatience(Patience{Before: Wait{Reason: "x", Since: since}, Waiting: func(w Wait) {
				if at := began.Sub(w.Since); (at-max(0, ago)).Abs() > time.Minute || !strings.Contains(w.Since.String(), "m=") {
					t.Errorf("since %v", w.Since)
				}
			}})
			if _, err := s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0"))); code(err) != release.NetworkError {
				t.Error(err)
			}
		})
	}
}
