package web

import (
	"testing"

	"github.com/bilbycast/edge-agent/release"
)

// Every code of a failure has a meaning and a remedy.
func TestEveryCodeHasItsMeaning(t *testing.T) {
	t.Parallel()
	for _, code := range release.Codes() {
		if code.Severity() == release.Info {
			continue
		}
		if h := help[string(code)]; h[0] == "" || h[1] == "" {
			t.Errorf("%s has no meaning or no remedy", code)
		}
	}
}
