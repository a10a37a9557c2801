package store_test

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// The disk of the database is full for a while. The store needs no restart.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=2m", "none", dir).CombinedOutput(); err != nil {
		if os.Getenv(box.RequireEnv) != "" {
			t.Fatalf("no file system can be mounted here: %s", out)
		}
		t.Skipf("NOT TESTED: no file system can be mounted here: %s", out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	s := open(t, filepath.Join(dir, "db"))
	must(t, s.Ready(t.Context()))
	fill, err := os.Create(filepath.Join(dir, "fill"))
	must(t, err)
	for err == nil {
		_, err = fill.Write(make([]byte, 512))
	}
	fill.Close()
	for err = nil; err == nil; {
		err = change(s)
	}
	if store.Trouble(err) != "full" {
		t.Errorf("got %v", err)
	}
	if err := s.Ready(t.Context()); store.Trouble(err) != "full" {
		t.Errorf("ready: %v", err)
	}
	if _, err := s.Groups(t.Context()); err != nil { // it can be read all the same
		t.Error(err)
	}
	if _, err := s.Away(); err == nil {
		t.Error("a read made it available")
	}
	must(t, os.Remove(fill.Name()))
	back(t, s)
}

// A full PostgreSQL may have room for changes of rows in their place, and none for a new event.
// The store is away until there is room for events, too.
func TestADatabaseWithoutRoomForEvents(t *testing.T) {
	t.Parallel()
	name := newPostgres(t)
	d := newDesk(t, name)
	d.add(t, "n", "g")
	must(t, d.st.Ready(t.Context()))
	event := func(id string) error {
		_, err := d.st.AddEvent(t.Context(), &api.Event{EventID: id, NodeID: "n", Time: now, ReceivedAt: now, Severity: "info", Category: "upgrade", Details: []byte("{}")})
		return err
	}
	must(t, event("1"))
	damage(t, name, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$`,
		"CREATE TRIGGER full_disk BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION full_disk()")
	if err := event("2"); store.Trouble(err) != "full" {
		t.Fatalf("got %v", err)
	}
	other := open(t, name) // it has seen no trouble, and finds out by its check
	must(t, other.RecordBeat(t.Context(), now, time.Minute, store.Beat{}))
	if err := other.Ready(t.Context()); store.Trouble(err) != "full" {
		t.Errorf("ready: %v", err)
	}
	if _, err := d.st.Away(); err == nil {
		t.Error("the store is not away")
	}
	damage(t, name, "DROP TRIGGER full_disk ON events")
	back(t, d.st)
	must(t, event("2"))
	if _, n, err := d.st.Events(t.Context(), store.EventFilter{NodeID: "n", Page: 1, PerPage: 10}); err != nil || n != 2 {
		t.Errorf("%d events, %v", n, err)
	}
}

// One row of a node that somebody else has locked does not make the store away.
func TestALockedNodeAndTheCheck(t *testing.T) {
	t.Parallel()
	name := newPostgres(t)
	d := newDesk(t, name)
	d.add(t, "n", "g")
	db, err := sql.Open("pgx", name)
	must(t, err)
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(t.Context(), "SELECT * FROM nodes FOR UPDATE")
	must(t, err)
	must(t, d.st.Ready(t.Context()))
}
