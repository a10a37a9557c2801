package nodes

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// The limit of time of a sending does not run while the sendings to other nodes have their turn.
func TestASendingWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes as long as the limit")
	}
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	now := time.Now()
	entry := store.NewAuditEntry(now, "ann", "x", "y", nil)
	for _, change := range []func() error{
		func() error { return st.AddToken(t.Context(), "t") },
		func() error {
			return st.Register(t.Context(), "t", store.Node{ID: "n", RegisteredAt: now, LastSeen: now})
		},
		func() error {
			return st.AddCommand(t.Context(), store.Command{ID: "c", NodeID: "n", Action: []byte("{}"), CreatedAt: now}, entry)
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
	}
	var lock sync.Mutex
	h := New(t.Context(), Config{Store: st, Log: zerolog.Nop(), CommandLock: &lock})
	lock.Lock()
	time.AfterFunc(storeTime+100*time.Millisecond, lock.Unlock)
	if err := recordSent(t.Context(), &session{hub: h, nodeID: "n"}, &wire.Command{CommandID: "c"}); err != nil {
		t.Error(err)
	}
}
