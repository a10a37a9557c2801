package main

import (
	"bytes"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A manager that finds an address occupied records nothing: it did not run, and another one
// may run over the same database.
func TestServeAtAnOccupiedAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for listen, releases := range map[string]string{l.Addr().String(): "127.0.0.1:0", "127.0.0.1:0": l.Addr().String()} {
		dir := t.TempDir()
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"serve", "--dir", dir, "--listen", listen, "--releases-listen", releases}, &out, &errs); code == cli.OK || !strings.Contains(errs.String(), "choose another one") {
			t.Fatalf("exit code %d\n%s%s", code, &out, &errs)
		}
		st, err := store.Open(t.Context(), filepath.Join(dir, "manager.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		if err := st.RecordAlive(t.Context(), time.Now().Add(time.Hour), 0); err != nil {
			t.Fatal(err)
		}
		if list, err := st.Outages(t.Context()); err != nil || len(list) > 0 {
			t.Errorf("listening at %s: %v, %v", listen, list, err)
		}
	}
}
