package rig_test

import (
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// builds returns simulation builds of edge-agent, by version.
func builds(t *testing.T) map[string]string {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// newRig returns a rig that is closed when the test ends.
func newRig(t *testing.T) *rig.Rig {
	t.Helper()
	r, err := rig.New(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// needBox makes a test parallel, and skips it where it cannot boot a machine.
func needBox(t *testing.T) {
	t.Helper()
	t.Parallel()
	if testing.Short() {
		t.Skip("boots a machine")
	}
	box.Need(t)
}
