package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"
)

// migrationFiles has one file per schema version and dialect. A file that has shipped
// is never changed.
//
//go:embed migrations
var migrationFiles embed.FS

// dialect is the difference between SQLite and PostgreSQL.
type dialect struct {
	name    string // also of the folder of its migrations
	find    string // function that returns the position of a text in another, from 1; 0: absent
	dollars bool   // parameters are $1 in place of ?, and a text cannot contain NUL
}

var (
	sqlite   = dialect{name: "sqlite", find: "instr"}
	postgres = dialect{name: "postgres", find: "strpos", dollars: true}
)

// contains returns the condition that the column contains the parameter, ignoring case.
func (d dialect) contains(column string) string {
	return d.find + "(lower(" + column + "), lower(?)) > 0"
}

// rebind translates a statement for SQLite into the dialect.
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
		if s, ok := a.(string); ok { // nodes choose some of the texts
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
	db     *sql.DB
	health *health
}

// connectionLife is how long a connection to PostgreSQL is used. So one to a server that a
// fail-over replaced ends by itself.
const connectionLife = 5 * time.Minute

// Open opens a database, and creates or migrates its schema. A name that begins with
// postgres:// or postgresql:// is the URL of a PostgreSQL server, any other URL is an error,
// and any other name is a file of SQLite.
// Only one manager at a time may use a database.
func Open(ctx context.Context, name string) (*Store, error) {
	server, err := isPostgres(name)
	if err != nil {
		return nil, err
	}
	driver, dsn, d := "sqlite", "file:"+(&url.URL{Path: name}).EscapedPath()+
		"?_pragma=busy_timeout(3000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_txlock=immediate", sqlite
	if server {
		shown, err := redacted(name)
		if err != nil {
			return nil, err
		}
		_, rest, _ := strings.Cut(name, "://") // the driver knows the scheme in lower case only
		driver, dsn, d, name = "pgx", "postgres://"+rest, postgres, shown
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	// One connection: SQLite has one writer, and waiting here beats SQLITE_BUSY.
	// With PostgreSQL it makes the order of events the order in which they are seen.
	db.SetMaxOpenConns(1)
	if d == postgres {
		db.SetConnMaxLifetime(connectionLife)
	}
	s := &Store{db: db}
	s.conn, s.health = conn{d, watched{s}}, newHealth(s.write)
	if err := s.migrate(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context) error {
	names, err := fs.Glob(migrationFiles, path.Join("migrations", s.name, "*.sql")) // sorted
	if err != nil {
		return err
	}
	return s.begin(ctx, func(tx conn) error {
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
			return fmt.Errorf("its schema has version %d; this program knows up to %d", have, len(names))
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

// Close closes the database.
func (s *Store) Close() error {
	s.health.close()
	return s.db.Close()
}

// tx runs f in a transaction.
func (s *Store) tx(ctx context.Context, f func(conn) error) error {
	ended := s.health.began()
	err := s.begin(ctx, f)
	s.drop(err)
	ended(err)
	return err
}

// begin is tx without a limit of time.
func (s *Store) begin(ctx context.Context, f func(conn) error) error {
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

func collect[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// where is the conditions of a query; a row must meet all of them.
type where struct {
	conds []string
	args  []any
}

func (w *where) add(cond string, args ...any) {
	w.conds, w.args = append(w.conds, cond), append(w.args, args...)
}

// equal adds a condition for a column, unless v is "", which matches all.
func (w *where) equal(column, v string) {
	if v != "" {
		w.add(column+" = ?", v)
	}
}

func (w *where) String() string {
	if len(w.conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conds, " AND ")
}

// count returns how many rows of the table match.
func (s *Store) count(ctx context.Context, table string, w where) (n int, err error) {
	err = s.row(ctx, "SELECT count(*) FROM "+table+w.String(), w.args...).Scan(&n)
	return n, err
}

// all returns the LIMIT for a limit; negative means no limit.
func all(limit int) int {
	if limit < 0 {
		return math.MaxInt32
	}
	return limit
}
