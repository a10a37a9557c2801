package store_test

import (
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
)

func TestManifestsOfNodes(t *testing.T) { each(t, testManifestsOfNodes) }

// A node of an earlier database reports no manifest. What it reports belongs to the version
// that it runs.
func testManifestsOfNodes(t *testing.T, path string) {
	earlier(t, path, 9, 6, `INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, registered_at, last_seen) VALUES ('a', 'edge', 'h', '1.0.0', '[]', 1, 2)`)
	s, ctx := open(t, path), t.Context()
	has := func(when, want string) {
		t.Helper()
		if n, err := s.Node(ctx, "a"); err != nil || n.Manifest != want {
			t.Errorf("%s: %q, %v, want %q", when, n.Manifest, err, want)
		}
	}
	has("after the migration", "")
	must(t, s.RecordManifest(ctx, "a", "1.0.0", "x"))
	has("reported", "x")
	must(t, s.RecordManifest(ctx, "a", "1.1.0", "y"))
	has("of another version", "x")
	must(t, s.RecordConnect(ctx, "a", "1.0.0", "", now))
	has("at the same version", "x")
	must(t, s.RecordConnect(ctx, "a", "1.1.0", "", now.Add(time.Second)))
	has("at another version", "")
	must(t, s.RecordHealth(ctx, store.Node{ID: "a", Version: "1.1.0", Manifest: "y", LastSeen: now}))
	has("in a health beat", "y")
	must(t, s.RecordHealth(ctx, store.Node{ID: "a", Version: "1.1.0", LastSeen: now}))
	has("no longer", "")
}
