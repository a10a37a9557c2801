package watchdog_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
)

// ranFor makes the last start in l that much older.
func ranFor(t *testing.T, l state.Layout, d time.Duration) {
	t.Helper()
	path := filepath.Join(l.Root(), "watchdog.row")
	var row map[string]any
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &row)
	}
	if err != nil {
		t.Fatal(err)
	}
	row["at_ms"] = row["at_ms"].(float64) - float64(d.Milliseconds())
	if b, err = json.Marshal(row); err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A service that ends again and again waits before each start, longer each time. Nothing
// else waits: the first restart, a start by an operator, a trial, and a rollback.
func TestPauseBeforeAStart(t *testing.T) {
	t.Parallel()
	const systemdWaits = 100 * time.Millisecond
	stable := watchdog.Report{Status: state.Stable}
	l := root(t)
	asked := 0
	var pace watchdog.Pace
	var unknown error
	starts := func(what string, rep watchdog.Report, restarts int, want time.Duration) {
		t.Helper()
		pace.Restarts = restarts
		got, _ := rep.Pause(t.Context(), l, func(context.Context) (watchdog.Pace, error) { asked++; return pace, unknown })
		if got != want {
			t.Errorf("%s: it waits %v, want %v", what, got, want)
		}
	}
	pace = watchdog.Pace{Wait: systemdWaits, Limit: time.Minute}
	starts("the first start of a boot", stable, 0, 0)
	ranFor(t, l, time.Hour)
	starts("after an hour", stable, 40, 0)
	if asked != 0 {
		t.Errorf("a stable start asked systemd %d times", asked)
	}
	n := 40
	for _, want := range []time.Duration{200, 400, 800, 1600, 3200, 6400, 10000, 10000} {
		n++
		starts("a quick end", stable, n, want*time.Millisecond-systemdWaits)
	}
	starts("an operator starts it", stable, 0, 0)
	starts("then it ends quickly", stable, 1, 200*time.Millisecond-systemdWaits)
	starts("and again", stable, 2, 400*time.Millisecond-systemdWaits)
	asked = 0
	for range 5 {
		starts("a trial", watchdog.Report{Status: state.PendingHealth}, 9, 0)
	}
	starts("the start that rolls back", watchdog.Report{Status: state.RolledBack, Reverted: true}, 9, 0)
	if asked != 0 {
		t.Errorf("a trial asked for the pace %d times", asked)
	}
	starts("a quick end after a rollback", watchdog.Report{Status: state.RolledBack}, 10, 200*time.Millisecond-systemdWaits)
	starts("an operator starts it again", stable, 0, 0)
	for i := range 20 { // of which systemd made few
		want := 400*time.Millisecond - systemdWaits
		if i == 0 {
			want = 200*time.Millisecond - systemdWaits
		}
		starts("an operator between quick ends", stable, 2, want)
	}
	pace.Wait = 30 * time.Second
	starts("where RestartSec= is long", stable, 99, 0)
	pace.Wait = systemdWaits
	for limit, want := range map[time.Duration]time.Duration{10 * time.Second: 5 * time.Second, time.Second: 500 * time.Millisecond, 0: 5 * time.Second, time.Hour: 10*time.Second - systemdWaits} {
		pace.Limit = limit
		starts("with TimeoutStartSec="+limit.String(), stable, 99, want)
	}
	pace.Limit = 0
	unknown = errors.New("no answer")
	starts("without an answer", stable, 99, 0)
	unknown = nil
	ranFor(t, l, time.Minute)
	starts("after a minute", stable, 99, 0)
	// The file of another boot, or a damaged one, counts nothing.
	if err := os.WriteFile(filepath.Join(l.Root(), "watchdog.row"), []byte(`{"boot_id":"x","at_ms":1,"row":50}`), 0o600); err != nil {
		t.Fatal(err)
	}
	starts("after a reboot", stable, 99, 0)
	if err := os.WriteFile(filepath.Join(l.Root(), "watchdog.row"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	starts("with a damaged file", stable, 99, 0)
	// Where nothing can be written, as on a disk that became read-only, systemd alone counts.
	path := filepath.Join(l.Root(), "watchdog.row")
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	starts("without a file", stable, 5, 3200*time.Millisecond-systemdWaits)
	starts("a first restart without a file", stable, 1, 200*time.Millisecond-systemdWaits)
	starts("an operator's start without a file", stable, 0, 0)
	starts("a trial without a file", watchdog.Report{Status: state.PendingHealth}, 5, 0)
}
