package watchdog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
)

var v1, v2 = release.MustVersion("1.0.0"), release.MustVersion("1.1.0")

// root returns an install root that runs 1.0.0, with 1.1.0 installed.
func root(t testing.TB) state.Layout {
	t.Helper()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	lay(t, l)
	return l
}

// lay installs 1.0.0, which runs, and 1.1.0 in l.
func lay(t testing.TB, l state.Layout) {
	t.Helper()
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	for _, v := range []release.Version{v1, v2} {
		if err := os.Mkdir(l.Version(v), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := (fsutil.Disk{}).Symlink("versions/1.0.0", l.Current()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

// trial returns a root with 1.1.0 on trial, for max starts.
func trial(t testing.TB, max int) state.Layout {
	t.Helper()
	l := root(t)
	_, err := l.Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		s = state.Begin(s, state.Trial{ID: "c", CommandID: "c", Target: v2, MaxAttempts: max}, time.Now())
		tr.Previous, tr.Current = v1, v2
		return s, tr, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func short(r watchdog.Report) string {
	return fmt.Sprintf("%s %s %d/%d reverted=%v errs=%d", r.Status, r.Current, r.BootAttempts, r.MaxAttempts, r.Reverted, len(r.Errs))
}

func TestCountsThenRollsBackInTheSameStart(t *testing.T) {
	t.Parallel()
	l := trial(t, 2)
	for _, want := range []string{
		"pending_health 1.1.0 1/2 reverted=false errs=0",
		"pending_health 1.1.0 2/2 reverted=false errs=0",
		"rolled_back 1.0.0 2/2 reverted=true errs=0",
		"rolled_back 1.0.0 2/2 reverted=false errs=0",
	} {
		if got := short(watchdog.Run(t.Context(), l)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if to, _ := os.Readlink(l.Current()); to != "versions/1.0.0" {
		t.Errorf("current -> %s", to)
	}
	entries, _, err := l.Outbox().List()
	if err != nil {
		t.Fatal(err)
	}
	last := entries[len(entries)-1].Event
	if last.Code != release.RolledBack || last.BootAttempts != 2 || last.From != v2 || last.To != v1 {
		t.Errorf("the event: %+v", last)
	}
}

// The count is durable before the new version runs.
func TestTheCountIsOnDisk(t *testing.T) {
	t.Parallel()
	l := trial(t, 3)
	watchdog.Run(t.Context(), l)
	b, err := os.ReadFile(filepath.Join(l.Root(), "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := state.Decode(b); err != nil || s.BootAttempts != 1 {
		t.Errorf("on disk: %d starts, %v", s.BootAttempts, err)
	}
}

func TestAStableRootIsNotChanged(t *testing.T) {
	t.Parallel()
	l := root(t)
	before, _ := os.Stat(filepath.Join(l.Root(), "state.json"))
	if got := short(watchdog.Run(t.Context(), l)); got != "stable 1.0.0 0/0 reverted=false errs=0" {
		t.Error(got)
	}
	if after, _ := os.Stat(filepath.Join(l.Root(), "state.json")); !os.SameFile(before, after) {
		t.Error("state.json was written")
	}
}

// refuse fails each change of a path that contains a word.
type refuse struct {
	word string
	err  error
}

func (r refuse) Change(op fsutil.Op, make func() error) error {
	if strings.Contains(op.Path, r.word) {
		return r.err
	}
	return make()
}

// A trial whose starts cannot be counted could last for ever, so it ends at once, by the
// link alone.
func TestATrialThatCannotBeCountedEnds(t *testing.T) {
	t.Parallel()
	l := trial(t, 3)
	watchdog.Run(t.Context(), l)
	full := l.On(fsutil.Disk{Seam: refuse{"state.json", syscall.ENOSPC}})
	if got := short(watchdog.Run(t.Context(), full)); got != "rolled_back 1.0.0 1/3 reverted=true errs=1" {
		t.Error(got)
	}
	if to, _ := os.Readlink(l.Current()); to != "versions/1.0.0" {
		t.Errorf("current -> %s", to)
	}
	// The next watchdog that can write records it.
	if got := short(watchdog.Run(t.Context(), l)); got != "rolled_back 1.0.0 1/3 reverted=false errs=0" {
		t.Error(got)
	}
	entries, _, _ := l.Outbox().List()
	if n := len(entries); n == 0 || entries[n-1].Event.Code != release.RolledBack {
		t.Errorf("outbox: %+v", entries)
	}
}

// A counted start stays counted, whatever cannot be written afterwards: neither a report
// nor the state of the outbox ends a trial.
func TestAReportThatCannotBeWrittenEndsNoTrial(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 70_000)
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, l state.Layout)
		disk  fsutil.Disk
		errs  int
	}{
		"the outbox is read-only": {disk: fsutil.Disk{Seam: refuse{"/outbox", syscall.EROFS}}, errs: 1},
		"the outbox has no space": {disk: fsutil.Disk{Seam: refuse{"/outbox", syscall.ENOSPC}}, errs: 1},
		"the outbox is a link to nothing": {spoil: func(t *testing.T, l state.Layout) {
			dir := filepath.Join(l.Root(), "outbox")
			if err := errors.Join(os.RemoveAll(dir), os.Symlink("/nonexistent/outbox", dir)); err != nil {
				t.Fatal(err)
			}
		}, errs: 1},
		"an entry is too large":      {spoil: pending(`{"id":"t.big","time":"2026-11-25T00:00:00Z","event":{"code":"upgrade_staged","message":"` + big + `"}}`)},
		"an entry has no content":    {spoil: pending(`{"id":"t.none","time":"2026-11-25T00:00:00Z"}`)},
		"an entry's id names a path": {spoil: pending(`{"id":"../../x","time":"2026-11-25T00:00:00Z","event":{"code":"upgrade_staged","message":"m"}}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := root(t)
			if _, err := l.On(fsutil.Disk{Seam: refuse{"/outbox", syscall.EROFS}}).Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
				s = state.Begin(s, state.Trial{ID: "c", CommandID: "c", Target: v2, MaxAttempts: 3}, time.Now())
				tr.Previous, tr.Current = v1, v2
				return s, tr, nil
			}); !errors.Is(err, state.ErrReportsPending) {
				t.Fatal(err)
			}
			if tt.spoil != nil {
				tt.spoil(t, l)
			}
			for start := 1; start <= 3; start++ {
				want := fmt.Sprintf("pending_health 1.1.0 %d/3 reverted=false errs=%d", start, tt.errs)
				if got := short(watchdog.Run(t.Context(), l.On(tt.disk))); got != want {
					t.Fatalf("start %d: %s, want %s", start, got, want)
				}
			}
			if tt.errs > 0 {
				return
			}
			// The valid reports reached the outbox in spite of the damaged one.
			entries, bad, err := l.Outbox().List()
			if err != nil || len(bad) > 0 || len(entries) == 0 {
				t.Errorf("the outbox: %v, %v, %v", entries, bad, err)
			}
		})
	}
}

// pending adds an entry in front of the pending reports of state.json.
func pending(entry string) func(t *testing.T, l state.Layout) {
	return func(t *testing.T, l state.Layout) {
		path := filepath.Join(l.Root(), "state.json")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		m["owed"] = append([]any{json.RawMessage(entry)}, m["owed"].([]any)...)
		if b, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The cause of each failed start is recorded, and is in the report of the rollback.
func TestTheCauseOfEachFailedStartIsKept(t *testing.T) {
	t.Parallel()
	l := trial(t, 3)
	causes := []string{"exit status 3", "signal: killed\nsecond line", ""}
	for i := range 4 {
		watchdog.RunAfter(t.Context(), l, watchdog.Systemd{LastEnd: func(context.Context) string {
			if i == 0 {
				t.Error("the first start is asked how the start before it ended")
				return ""
			}
			return causes[i-1]
		}})
	}
	res, err := l.Read()
	if err != nil || res.State.Status != state.RolledBack {
		t.Fatalf("%+v, %v", res.State, err)
	}
	want := []string{"exit status 3", "signal: killed second line"}
	if !slices.Equal(res.State.FailedStarts, want) || !strings.HasSuffix(res.State.Reason, "in 3 starts (start 2: signal: killed second line)") {
		t.Errorf("state.json has %q, reason %q", res.State.FailedStarts, res.State.Reason)
	}
	entries, _, _ := l.Outbox().List()
	if e := entries[len(entries)-1].Event; e.Code != release.RolledBack || !slices.Equal(e.FailedStarts, want) {
		t.Errorf("the event: %+v", e)
	}
}

// The agent learns that a watchdog ran before its own start, and learns it once.
func TestTheStartIsRecorded(t *testing.T) {
	t.Parallel()
	l := root(t)
	if l.TakeStart() {
		t.Error("nothing ran yet")
	}
	for range 2 {
		watchdog.Run(t.Context(), l)
		if !l.TakeStart() || l.TakeStart() {
			t.Error("a record does not count exactly once")
		}
	}
	watchdog.Run(t.Context(), l)
	path := filepath.Join(l.Root(), "watchdog.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), `"boot_id":"`, `"boot_id":"another`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if l.TakeStart() {
		t.Error("a record of another boot counts")
	}
	for name, make := range map[string]func(string) error{
		"a directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"a FIFO":      func(p string) error { return syscall.Mkfifo(p, 0o644) },
		"a link":      func(p string) error { return os.Symlink("state.json", p) },
	} {
		if err := errors.Join(os.RemoveAll(path), make(path)); err != nil {
			t.Fatal(err)
		}
		if rep := watchdog.Run(t.Context(), l); len(rep.Errs) > 0 || !l.TakeStart() { // it is set aside
			t.Errorf("%s in its place: %v, or no record", name, rep.Errs)
		}
	}
}

// A unit whose drop-in adds a second watchdog counts each start once. Where the start is
// unknown, each run of the watchdog counts.
func TestAStartIsCountedOnce(t *testing.T) {
	l := trial(t, 3)
	t.Setenv("SYSTEMD_EXEC_PID", strconv.Itoa(os.Getpid()))
	run := func(invocation string, want int) {
		t.Helper()
		t.Setenv("INVOCATION_ID", invocation)
		if rep := watchdog.Run(t.Context(), l); rep.BootAttempts != want || rep.Reverted {
			t.Errorf("%s: %s, want %d starts", invocation, short(rep), want)
		}
	}
	run("first", 1)
	run("first", 1)
	run("second", 2)
	run("second", 2)
	t.Setenv("SYSTEMD_EXEC_PID", "1") // of a supervisor that systemd started
	run("second", 3)
	t.Setenv("SYSTEMD_EXEC_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("INVOCATION_ID", "third")
	if rep := watchdog.Run(t.Context(), l); !rep.Reverted {
		t.Errorf("the last start: %s", short(rep))
	}
}

func TestNothingInstalled(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rep := watchdog.Run(t.Context(), l)
	if rep.Status != "" || len(rep.Notes) != 1 {
		t.Errorf("got %+v", rep)
	}
}

func TestNoRoot(t *testing.T) {
	t.Parallel()
	l, err := state.At(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	rep := watchdog.Run(t.Context(), l)
	if len(rep.Errs) == 0 || !errors.Is(rep.Errs[0], os.ErrNotExist) {
		t.Errorf("got %+v", rep)
	}
}

func BenchmarkStableRoot(b *testing.B) {
	l := root(b)
	b.ReportAllocs()
	for b.Loop() {
		watchdog.Run(b.Context(), l)
	}
}
