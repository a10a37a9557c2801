package store_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
)

// server is a PostgreSQL server of this run's own; "": there is none.
var server string

var databases atomic.Int64

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // Debian's
	if err != nil || len(found) == 0 {
		if os.Getenv(box.RequireEnv) != "" {
			return 1, fmt.Errorf("there is no PostgreSQL, and %s is set", box.RequireEnv)
		}
		fmt.Fprintln(os.Stderr, "NOT TESTED with PostgreSQL: it is not installed")
		return m.Run(), nil
	}
	bin := filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Getuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return 1, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			return 1, err
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, name), args...)
		c.Dir, c.SysProcAttr = dir, attr
		return c
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-N", "-A", "trust", "-U", "test", "-E", "UTF8", data).CombinedOutput(); err != nil {
		return 1, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	pg := command("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-F")
	stderr, err := pg.StderrPipe()
	if err != nil {
		return 1, err
	}
	if err := pg.Start(); err != nil {
		return 1, err
	}
	defer func() {
		pg.Process.Signal(syscall.SIGQUIT)
		pg.Wait()
	}()
	var log strings.Builder
	lines := bufio.NewScanner(stderr)
	for ready := false; !ready; {
		if !lines.Scan() {
			return 1, fmt.Errorf("PostgreSQL does not start: %s", log.String())
		}
		log.WriteString(lines.Text() + "\n")
		ready = strings.Contains(lines.Text(), "ready to accept connections")
	}
	go io.Copy(io.Discard, stderr) // until it ends
	server = "postgres:///postgres?" + url.Values{"host": {dir}, "user": {"test"}}.Encode()
	return m.Run(), nil
}

// each runs a test with each kind of database; name is an empty database.
func each(t *testing.T, test func(t *testing.T, name string)) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) { t.Parallel(); test(t, filepath.Join(t.TempDir(), "db")) })
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, newPostgres(t))
	})
}

// newPostgres returns the name of an empty database of PostgreSQL.
func newPostgres(t *testing.T) string {
	t.Helper()
	if server == "" {
		t.Skip("NOT TESTED with PostgreSQL: it is not installed") // run fails if it must be
	}
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	name := fmt.Sprint("test", databases.Add(1))
	if _, err := db.ExecContext(context.Background(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(server, "/postgres?", "/"+name+"?", 1)
}
