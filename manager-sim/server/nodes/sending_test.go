package nodes

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
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
	if err := recordSent(t.Context(), &session{hub: h, nodeID: "n"}, &wire.Command{CommandID: "c", Action: wire.Action{Type: wire.ActionUpgrade}}); err != nil {
		t.Error(err)
	}
}

// What a session has not stored because it has ended is no defect of the manager.
func TestTheEndOfASessionIsNoDefect(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := newSession(ctx, New(t.Context(), Config{Log: zerolog.New(&log)}), nil, "192.0.2.1:1", cancel)
	endDefect(s, fmt.Errorf("read: %w", context.Canceled))
	if log.Len() > 0 {
		t.Error(log.String())
	}
}
