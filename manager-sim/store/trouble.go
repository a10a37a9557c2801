package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	sqlitedriver "modernc.org/sqlite"
)

// ErrUnavailable means that the database did not answer in time. Errors of the database
// itself do not wrap it: see Unavailable.
var ErrUnavailable = errors.New("the database does not answer")

// sqliteTrouble is the primary result codes of SQLite that are no fault of a statement.
var sqliteTrouble = map[int]string{
	5: "locked", 6: "locked", 7: "out of memory", 8: "read-only", 10: "a disk error", 13: "full", 14: "its file cannot be opened", 15: "locked", 17: "being migrated",
}

const (
	sqliteError  = 1                 // SQLITE_ERROR, which most faults of statements have
	tableMissing = "missing a table" // it is being migrated or restored; Ready checks the same
)

// postgresTrouble is the SQLSTATEs of PostgreSQL, or their classes, that are no fault of a
// statement.
var postgresTrouble = map[string]string{
	"25006": "read-only", "57P": "restarting, or shutting down", "57014": "too slow", "53100": "full", "53200": "out of memory", "53300": "out of connections", "53": "out of resources",
	"08": "unreachable", "55P03": "locked", "40001": "locked", "40P01": "locked", "58": "a disk error", "28": "refusing the manager's user", "3D000": "missing", "42P01": tableMissing,
}

// Trouble returns what is wrong with the database if err is the trouble of the database, and
// no fault of the statement: the same change can succeed later. It returns "" for any other
// error. The text names no secret.
func Trouble(err error) string {
	var lite *sqlitedriver.Error
	var state interface{ SQLState() string }
	switch {
	case err == nil:
		return ""
	case errors.As(err, &lite):
		if lite.Code() == sqliteError && strings.Contains(lite.Error(), "no such table") {
			return tableMissing
		}
		return sqliteTrouble[lite.Code()&0xff]
	case errors.As(err, &state):
		for code := state.SQLState(); len(code) > 1; code = code[:len(code)-1] {
			if text := postgresTrouble[code]; text != "" {
				return text
			}
		}
		return ""
	case errors.Is(err, ErrUnavailable):
		return "not answering"
	case unreachable(err):
		return "unreachable"
	}
	return ""
}

// unreachable reports whether err is one of the connection to the database.
func unreachable(err error) bool {
	var network net.Error
	var connect *pgconn.ConnectError
	var errno syscall.Errno
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false // which is of the caller
	}
	return errors.As(err, &connect) || errors.As(err, &network) || errors.As(err, &errno) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || strings.HasSuffix(err.Error(), "database is closed") ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || strings.HasSuffix(err.Error(), "conn closed") // of pgconn, which does not export it
}

// Unavailable reports whether err is the trouble of the database: see Trouble.
func Unavailable(err error) bool { return Trouble(err) != "" }

// stale reports whether the connection on which err occurred is useless, and another one may
// be good: a fail-over made its server read-only, or ended it; or SQLite opened its file when
// that could not be written.
func stale(err error) bool {
	var lite *sqlitedriver.Error
	if errors.As(err, &lite) {
		code := lite.Code() & 0xff
		return code == 8 || code == 10 || code == 14
	}
	var state interface{ SQLState() string }
	if !errors.As(err, &state) {
		return false
	}
	code := state.SQLState()
	return code == "25006" || strings.HasPrefix(code, "57P0")
}
