package store_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A store that lacks a table is not ready, whichever it is, and is ready again once the table is
// there.
func TestAMissingTable(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/db"
	st := open(t, path)
	must(t, st.Ready(t.Context()))
	for _, table := range tablesOf(t, path) {
		st, err := store.Open(t.Context(), path)
		must(t, err)
		damage(t, path, "ALTER TABLE "+table+" RENAME TO away")
		if err := st.Ready(t.Context()); err == nil {
			t.Errorf("without %s it is ready", table)
		}
		damage(t, path, "ALTER TABLE away RENAME TO "+table)
		select {
		case <-st.Back():
		case <-time.After(30 * time.Second):
			t.Errorf("%s: not ready again", table)
		}
		must(t, st.Ready(t.Context()))
		must(t, st.Close())
	}
}

func tablesOf(t *testing.T, path string) (names []string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		must(t, rows.Scan(&name))
		names = append(names, name)
	}
	must(t, rows.Err())
	return names
}
