package server_test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// restart ends the server, and starts it again as if it had been away for some time.
func (m *manager) restart(away time.Duration) {
	m.t.Helper()
	m.Close()
	m.http.Close()
	if err := m.Store.RecordAlive(m.t.Context(), time.Now().Add(-away), 24*365*time.Hour); err != nil {
		m.t.Fatal(err)
	}
	m.run(server.Config{})
}

// The outage of a manager that is killed begins when it last recorded that it ran, and ends
// with the next start.
func TestAnOutageOfAKilledManager(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	began := time.Now().Truncate(time.Millisecond)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), mortalEnv+"="+dir+" "+addr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; {
		if resp, err := http.Get("http://" + addr + "/readyz"); err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("the manager does not answer")
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	killed := time.Now()

	st, err := store.Open(t.Context(), filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	clock, err := engine.StartClock(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	list := clock.Outages(killed)
	if len(list) != 1 || list[0].Began.Before(began) || list[0].Began.After(killed) || list[0].Ended.Before(killed.Truncate(time.Millisecond)) {
		t.Errorf("started %v, killed %v: %v", began, killed, list)
	}
	// A manager that was suspended for an hour, and one whose clock was a year off.
	for i, tt := range []struct {
		after   time.Duration
		outages int
	}{{6 * time.Second, 1}, {12 * time.Second, 1}, {18 * time.Second, 1}, {time.Hour, 2}, {time.Hour + 10*time.Second, 2}, {time.Hour + 20*time.Second, 2}, {9000 * time.Hour, 3},
		{time.Hour + 26*time.Second, 3}, {time.Hour + 32*time.Second, 3}, {time.Hour + 20*time.Second, 2}} {
		if err := clock.Beat(t.Context(), killed.Add(tt.after)); err != nil || len(clock.Outages(killed)) != tt.outages {
			t.Errorf("beat %d: %v, %v", i, clock.Outages(killed), err)
		}
	}
}
