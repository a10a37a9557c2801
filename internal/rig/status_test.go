package rig_test

import (
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/state"
)

// A credentials.json that is a FIFO blocks nobody who asks for a node's id.
func TestNodeIDOfAFifo(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(l.CredentialsFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := rig.NodeID(l); err == nil {
		t.Errorf("the id is %q", id)
	}
}
