package state

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/release"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// rootWithMuchToLose has a command in progress, a rollback floor, and a report.
func rootWithMuchToLose(t *testing.T) Layout {
	t.Helper()
	l, err := At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v := release.MustVersion("1.0.0")
	if err := errors.Join(l.Make(), os.Mkdir(l.Version(v), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(t.Context(), func(s State, tr Tree, now time.Time) (State, Tree, error) {
		tr.LastGood, tr.Current = v, v
		s = Install(s, Trial{Target: v, RollbackFloor: v, FloorSequence: 7}, now)
		return Start(s, Command{ID: "c", Version: release.MustVersion("1.1.0"), From: v, Channel: "stable"}, now), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

// contents is a snapshot without times and modes, which the test itself changes.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for path, text := range snapshot(t, dir) {
		fields := strings.Split(text, " ")
		files[path] = fields[len(fields)-1]
	}
	return files
}

// A file that cannot be opened is not a damaged one: nothing is set aside, and once
// it can be read again nothing is lost.
func TestAFileThatCannotBeReadIsNotDamaged(t *testing.T) {
	t.Parallel()
	l := rootWithMuchToLose(t)
	entries, _, err := l.Outbox().List()
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	names, err := l.Outbox().names()
	if err != nil {
		t.Fatal(err)
	}
	before, want := contents(t, l.Root()), mustRead(t, l)
	unreadable.While(t, l.Root(), l.StateFile(), func() {
		if _, err := l.Do(t.Context(), nil); !errors.Is(err, ErrUnreadable) {
			t.Errorf("Do: %v", err)
		}
		if res, err := l.Read(); !errors.Is(err, ErrUnreadable) || res.State.Status != "" {
			t.Errorf("Read: %+v, %v", res.State, err)
		}
	})
	unreadable.While(t, l.Root(), filepath.Join(l.OutboxDir(), names[0].file), func() {
		entries, bad, err := l.Outbox().List()
		if err == nil || len(bad)+len(entries) > 0 {
			t.Errorf("List: %d entries, %d bad, %v", len(entries), len(bad), err)
		}
		if err := l.Outbox().SetAside(t.Context(), BadEntry{names[0], errors.New("of an earlier look")}); err != nil {
			t.Error(err)
		}
	})
	if diff := cmp.Diff(before, contents(t, l.Root())); diff != "" {
		t.Errorf("the root changed (-before +after):\n%s", diff)
	}
	if got := mustRead(t, l).State; !reflect.DeepEqual(got, want.State) {
		t.Errorf("the state was %+v, and is %+v", want.State, got)
	}
}

func mustRead(t *testing.T, l Layout) Result {
	t.Helper()
	res, err := l.Read()
	if err != nil {
		t.Fatal(err)
	}
	return res
}

const fewFilesEnv = "EDGE_AGENT_TEST_FEW_FILES"

// With too few descriptors, however many are left, Do changes nothing or succeeds.
func TestTooFewDescriptors(t *testing.T) {
	if dir := os.Getenv(fewFilesEnv); dir != "" {
		doWithFewFiles(t, dir)
		return
	}
	t.Parallel()
	l := rootWithMuchToLose(t)
	before, refused := contents(t, l.Root()), 0
	for limit := -2; limit < 6; limit++ {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestTooFewDescriptors$", "-test.v")
		cmd.Env = append(os.Environ(), fewFilesEnv+"="+strconv.Itoa(limit)+":"+l.Root())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%d: %v: %s", limit, err, out)
		}
		if strings.Contains(string(out), ErrUnreadable.Error()) && strings.Contains(string(out), "too many open files") {
			refused++
		}
		if diff := cmp.Diff(before, contents(t, l.Root())); diff != "" {
			t.Fatalf("with %d more descriptors the root changed (-before +after):\n%s", limit, diff)
		}
	}
	if refused == 0 {
		t.Error("state.json was never the file that one descriptor was missing for")
	}
}

// doWithFewFiles runs Do in a process of its own, whose limit ends the open files.
func doWithFewFiles(t *testing.T, arg string) {
	text, dir, _ := strings.Cut(arg, ":")
	more, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	l, err := At(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Go's runtime needs some descriptors of its own, with the first file that it polls.
	if _, _, err := os.Pipe(); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	limit := uint64(len(open) - 1 + more) // one was that of the directory
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	_, err = l.Do(t.Context(), nil)
	t.Log(err)
}
