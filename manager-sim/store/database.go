package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"
	_ "modernc.org/sqlite"             // driver "sqlite"
)

// migrationFiles bring the schema of each dialect from version i to i+1. One
// that has shipped is never changed.
//
//go:embed migrations
var migrationFiles embed.FS

// dialect is in what SQLite and PostgreSQL differ.
type dialect struct {
	name    string // also of the folder of its migrations
	find    string // function that finds a text in a text, from 1; 0 if it is not there
	dollars bool   // $1 for ?, and no NUL in a text
}

var (
	sqlite   = dialect{name: "sqlite", find: "instr"}
	postgres = dialect{name: "postgres", find: "strpos", dollars: true}
)

// contains is a condition: the column contains the parameter, in any case.
func (d dialect) contains(column string) string {
	return d.find + "(lower(" + column + "), lower(?)) > 0"
}

// rebind puts a statement that is written for SQLite into the dialect.
func (d dialect) rebind(query string, args []any) (string, []any) {
	if !d.dollars {
		return query, args
	}
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	for i, a := range args {
		if s, ok := a.(string); ok { // a node may say anything
			args[i] = strings.ReplaceAll(s, "\x00", "\uFFFD")
		}
	}
	return b.String(), args
}

type scanner interface{ Scan(...any) error }

// conn is the database, or a transaction.
type conn struct {
	dialect
	x interface {
		ExecContext(context.Context, string, ...any) (sql.Result, error)
		QueryContext(context.Context, string, ...any) (*sql.Rows, error)
		QueryRowContext(context.Context, string, ...any) *sql.Row
	}
}

func (c conn) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	query, args = c.rebind(query, args)
	return c.x.ExecContext(ctx, query, args...)
}

func (c conn) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	query, args = c.rebind(query, args)
	return c.x.QueryContext(ctx, query, args...)
}

func (c conn) row(ctx context.Context, query string, args ...any) *sql.Row {
	query, args = c.rebind(query, args)
	return c.x.QueryRowContext(ctx, query, args...)
}

// Store is an open database. Its methods are safe for concurrent use. A method that
// returns nil has made its change durable.
type Store struct {
	conn
	db *sql.DB
}

// Open opens a database, making or migrating its schema as needed: that of a
// PostgreSQL server for a URL that begins with postgres://, or else the SQLite
// file with that name. One manager at a time uses a database.
func Open(ctx context.Context, name string) (*Store, error) {
	driver, dsn, d := "sqlite", "file:"+(&url.URL{Path: name}).EscapedPath()+
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_txlock=immediate", sqlite
	if strings.HasPrefix(name, "postgres://") {
		u, err := url.Parse(name)
		if err != nil {
			return nil, errors.New("the database's URL is not one") // the error would show its password
		}
		driver, dsn, d, name = "pgx", name, postgres, u.Redacted()
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	// One connection: SQLite has one writer, and waiting here beats SQLITE_BUSY.
	// With PostgreSQL it makes the order of events the order in which they are seen.
	db.SetMaxOpenConns(1)
	s := &Store{conn{d, db}, db}
	if err := s.migrate(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context) error {
	names, err := fs.Glob(migrationFiles, path.Join("migrations", s.name, "*.sql")) // sorted
	if err != nil {
		return err
	}
	return s.tx(ctx, func(tx conn) error {
		read, write := "PRAGMA user_version", fmt.Sprintf("PRAGMA user_version = %d", len(names))
		if s.dialect == postgres {
			read, write = "SELECT version FROM schema_version", fmt.Sprintf("UPDATE schema_version SET version = %d", len(names))
			if _, err := tx.exec(ctx, `CREATE TABLE IF NOT EXISTS schema_version (one BOOLEAN PRIMARY KEY, version INT NOT NULL)`); err != nil {
				return err
			}
			if _, err := tx.exec(ctx, `INSERT INTO schema_version VALUES (TRUE, 0) ON CONFLICT DO NOTHING`); err != nil {
				return err
			}
		}
		var have int
		if err := tx.row(ctx, read).Scan(&have); err != nil {
			return err
		}
		if have > len(names) {
			return fmt.Errorf("its schema is %d; this program knows up to %d", have, len(names))
		}
		for _, name := range names[have:] {
			b, err := migrationFiles.ReadFile(name)
			if err != nil {
				return err
			}
			if _, err := tx.x.ExecContext(ctx, string(b)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		_, err := tx.exec(ctx, write)
		return err
	})
}

// Ping returns an error if the database cannot be reached.
func (s *Store) Ping(ctx context.Context) error { return s.db.PingContext(ctx) }

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// tx runs f in a transaction.
func (s *Store) tx(ctx context.Context, f func(conn) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := f(conn{s.dialect, tx}); err != nil {
		return err
	}
	return tx.Commit()
}

// Once is a request that is to be carried out once, however often it is made.
type Once struct {
	Key         string // whose, and which: the same for the same request
	Fingerprint string // of what is asked for
	done        bool
}

type onceKey struct{}

// With returns a context that binds the next change to o: it is made together
// with a note of o.Key, or fails with ErrRepeated if that is noted already.
func (o *Once) With(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, o) }

// Done reports whether a change was made.
func (o *Once) Done() bool { return o.done }

// ErrRepeated says that the request of a Once has been carried out.
var ErrRepeated = errors.New("carried out already")

// onceKept is how long a request is known again.
const onceKept = 24 * time.Hour

// change is tx for what an operator asks for: it honours a Once.
func (s *Store) change(ctx context.Context, f func(conn) error) error {
	o, _ := ctx.Value(onceKey{}).(*Once)
	if o == nil || o.done {
		return s.tx(ctx, f)
	}
	err := s.tx(ctx, func(tx conn) error {
		now := time.Now()
		if _, err := tx.exec(ctx, "DELETE FROM once WHERE time < ?", ms(now.Add(-onceKept))); err != nil {
			return err
		}
		r, err := tx.exec(ctx, "INSERT INTO once (key, fingerprint, time) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", o.Key, o.Fingerprint, ms(now))
		if err != nil {
			return err
		}
		if k, err := r.RowsAffected(); err != nil || k == 0 {
			return errors.Join(err, ErrRepeated)
		}
		return f(tx)
	})
	o.done = err == nil
	return err
}

// Answer is what a request that is made once was answered.
type Answer struct {
	Fingerprint string
	Status      int // 0: not known
	Body        string
}

// Answer returns the answer to a request that was made with a Once, or ErrNotFound. Its
// Status is 0 if the answer is not known.
func (s *Store) Answer(ctx context.Context, key string) (Answer, error) {
	var a Answer
	err := s.row(ctx, "SELECT fingerprint, status, body FROM once WHERE key = ?", key).Scan(&a.Fingerprint, &a.Status, &a.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return a, ErrNotFound
	}
	return a, err
}

// SetAnswer keeps the answer to a request that was made with a Once.
func (s *Store) SetAnswer(ctx context.Context, key string, a Answer) error {
	_, err := s.exec(ctx, "UPDATE once SET status = ?, body = ? WHERE key = ?", a.Status, a.Body, key)
	return err
}
