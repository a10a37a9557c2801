package web

import (
	"testing"

	"github.com/bilbycast/edge-agent/release"
)

// Every code that a node may fail with says what it means and what to do.
func TestEveryCodeHasItsMeaning(t *testing.T) {
	t.Parallel()
	for _, code := range release.Codes() {
		if code.Severity() == release.Info {
			continue
		}
		if c := coded("upgrade failed", string(code)); c.Meaning == "" || c.Fix == "" {
			t.Errorf("%s says nothing", code)
		}
	}
}
