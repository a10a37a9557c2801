package store_test

import (
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A node that reconnects all the time does not lose its absence of a weekend. Of its other
// connections the newest are kept, and of old absences none.
func TestConnectionsHaveABound(t *testing.T) { each(t, testConnectionsHaveABound) }

func testConnectionsHaveABound(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a", RegisteredAt: now, LastSeen: now}))
	at := now
	session := func(away time.Duration) {
		t.Helper()
		at = at.Add(4 * time.Minute)
		must(t, s.RecordDisconnect(ctx, "a", at))
		at = at.Add(away)
		must(t, s.RecordConnect(ctx, "a", "1.0.0", "192.0.2.1", at))
	}
	const weekend, sessions = 64 * time.Hour, 600
	session(weekend)
	for range sessions {
		session(time.Minute)
	}
	absences := func() (longest time.Duration, connections int) {
		t.Helper()
		cs, err := s.Connections(ctx, "a")
		must(t, err)
		for i := 1; i < len(cs); i++ { // newest first
			if cs[i-1].State == api.Authenticated && cs[i].State == api.Disconnected {
				longest = max(longest, cs[i-1].Time.Sub(cs[i].Time))
			}
		}
		return longest, len(cs)
	}
	if longest, k := absences(); longest != weekend || k < 1000 || k > 1020 {
		t.Errorf("the longest absence is %v, of %d connections", longest, k)
	}
	at = at.Add(31 * 24 * time.Hour) // in one session
	session(time.Minute)
	if longest, k := absences(); longest != time.Minute || k < 1000 || k > 1020 {
		t.Errorf("a month later: %v, of %d connections", longest, k)
	}
}
