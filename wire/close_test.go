package wire_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/wire"
)

func TestTryLater(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		wait time.Duration
		want time.Duration
	}{{46*time.Second + 1, 47 * time.Second}, {0, time.Second}, {time.Hour, time.Hour}} {
		for _, why := range []string{"too many failed attempts", strings.Repeat("x", 500)} {
			reason := wire.TryLater(why, tt.wait)
			if got := wire.ParseTryLater(reason); got != tt.want || len(reason) > 123 {
				t.Errorf("%q: %v, want %v", reason, got, tt.want)
			}
		}
	}
	for _, reason := range []string{"", "later", "try again in 99999999 s", "try again in -1 s", "try again in 5 s, or never"} {
		if got := wire.ParseTryLater(reason); got != 0 {
			t.Errorf("%q: %v", reason, got)
		}
	}
}
