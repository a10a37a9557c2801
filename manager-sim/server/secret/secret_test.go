package secret_test

import (
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
)

func TestMatches(t *testing.T) {
	t.Parallel()
	a, b := secret.New(), secret.New()
	if a == b || len(a) < 50 {
		t.Fatalf("%q, %q", a, b)
	}
	for _, c := range []struct {
		hash, secret string
		want         bool
	}{{secret.Hash(a), a, true}, {secret.Hash(a), b, false}, {secret.Hash(a), "", false}, {"", "", false}, {"", a, false}, {secret.Hash(""), "", true}} {
		if got := secret.Matches(c.hash, c.secret); got != c.want {
			t.Errorf("Matches(%q, %q) = %v", c.hash, c.secret, got)
		}
	}
}
