package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

type state string

func (s state) Error() string    { return "SQLSTATE " + string(s) }
func (s state) SQLState() string { return string(s) }

func TestTrouble(t *testing.T) {
	t.Parallel()
	for err, trouble := range map[error]bool{
		state("25006"): true, state("57P01"): true, state("57P02"): true, state("57P03"): true, state("53100"): true, state("53300"): true, state("08006"): true, state("55P03"): true,
		state("23505"): false, state("42P01"): true, state("42601"): false, io.EOF: true, io.ErrUnexpectedEOF: true, &net.OpError{Op: "dial", Err: errors.New("refused")}: true,
		store.ErrUnavailable: true, store.ErrNotFound: false, store.ErrConflict: false, sql.ErrNoRows: false, context.Canceled: false, context.DeadlineExceeded: false, errors.New("x"): false,
	} {
		if got := store.Unavailable(fmt.Errorf("act: %w", err)); got != trouble {
			t.Errorf("%v: %t", err, got)
		}
	}
	if store.Unavailable(nil) {
		t.Error("nil is trouble")
	}
}

// The errors of SQLite itself: a full, a read-only and a locked database, and a statement
// that is wrong.
func TestTroubleOfSQLite(t *testing.T) {
	t.Parallel()
	for want, statements := range map[string][]string{
		"full":            {"CREATE TABLE t (x)", "PRAGMA max_page_count = 2", "INSERT INTO t VALUES (zeroblob(100000))"},
		"read-only":       {"CREATE TABLE t (x)", "PRAGMA query_only = 1", "INSERT INTO t VALUES (1)"},
		"missing a table": {"INSERT INTO missing VALUES (1)"},
		"":                {"CREATE TABLE t (x)", "INSERT INTO t (y) VALUES (1)"},
	} {
		db, err := sql.Open("sqlite", t.TempDir()+"/db")
		must(t, err)
		db.SetMaxOpenConns(1)
		for _, s := range statements {
			_, err = db.ExecContext(t.Context(), s)
		}
		if err == nil || store.Trouble(err) != want {
			t.Errorf("%v: %q, want %q", err, store.Trouble(err), want)
		}
		db.Close()
	}
}

// change is a change that every database can make.
func change(s *store.Store) error {
	return s.AddAudit(context.Background(), api.AuditEntry{Time: now, Actor: "a", Action: "b", Target: "c", Details: []byte("{}")})
}

// away waits until a change of s fails with a trouble.
func away(t *testing.T, s *store.Store, trouble string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		if err := change(s); err != nil && store.Trouble(err) == trouble {
			break
		} else if time.Now().After(end) {
			t.Fatalf("got %v, want %q", err, trouble)
		}
	}
	if since, err := s.Away(); err == nil || since.IsZero() || !store.Unavailable(err) {
		t.Errorf("away since %v: %v", since, err)
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Error("it is ready")
	}
	select {
	case <-s.Back():
		t.Error("it is back already")
	default:
	}
}

func back(t *testing.T, s *store.Store) {
	t.Helper()
	select {
	case <-s.Back():
	case <-time.After(30 * time.Second):
		_, err := s.Away()
		t.Fatalf("it does not come back: %v", err)
	}
	must(t, change(s))
	must(t, s.Ready(t.Context()))
	if _, err := s.Away(); err != nil {
		t.Error(err)
	}
}

// A program holds a lock on the database for longer than the store waits.
func TestALockedDatabase(t *testing.T) { each(t, testALockedDatabase) }

func testALockedDatabase(t *testing.T, path string) {
	s := open(t, path)
	must(t, s.Ready(t.Context()))
	driver, lock, want := "sqlite", "BEGIN IMMEDIATE", "locked"
	if strings.HasPrefix(path, "postgres") { // a migration locks tables
		driver, lock, want = "pgx", "BEGIN; LOCK TABLE audit, store_check IN ACCESS EXCLUSIVE MODE", "not answering"
	}
	db, err := sql.Open(driver, path)
	must(t, err)
	defer db.Close()
	c, err := db.Conn(t.Context())
	must(t, err)
	defer c.Close()
	_, err = c.ExecContext(t.Context(), lock)
	must(t, err)
	if want == "locked" {
		away(t, s, want)
	} else {
		changed := make(chan error, 1)
		go func() { changed <- change(s) }()
		defer func() { must(t, <-changed) }() // it was only late
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := s.Away(); errors.Is(err, store.ErrUnavailable) {
				break
			} else if time.Now().After(end) {
				t.Fatal("a statement that hangs is not noticed")
			}
		}
	}
	_, err = c.ExecContext(t.Context(), "ROLLBACK")
	must(t, err)
	back(t, s)
}

// A fail-over ends the connection, and the next server is read-only for a while. The store
// needs no restart.
func TestAFailOver(t *testing.T) {
	t.Parallel()
	path := newPostgres(t)
	s := open(t, path)
	must(t, change(s))
	db, err := sql.Open("pgx", server)
	must(t, err)
	defer db.Close()
	name := strings.TrimPrefix(strings.Split(path, "?")[0], "postgres:///")
	run := func(statement string) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), statement)
		must(t, err)
	}
	run("ALTER DATABASE " + name + " SET default_transaction_read_only = on")
	run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'")
	away(t, s, "read-only")
	run("ALTER DATABASE " + name + " RESET default_transaction_read_only")
	back(t, s) // though its connection was a read-only one
}

// Ready writes at most every 10 s.
func TestReadyIsCached(t *testing.T) { each(t, testReadyIsCached) }

func testReadyIsCached(t *testing.T, path string) {
	s := open(t, path)
	for range 5 {
		must(t, s.Ready(t.Context()))
	}
	driver := "sqlite"
	if strings.HasPrefix(path, "postgres") {
		driver = "pgx"
	}
	db, err := sql.Open(driver, path)
	must(t, err)
	defer db.Close()
	var writes int
	must(t, db.QueryRowContext(t.Context(), "SELECT at FROM store_check").Scan(&writes))
	if writes != 1 {
		t.Errorf("%d writes", writes)
	}
}
