package state

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/release"
)

// Amend returns the error of an outbox, or of an entry, that cannot be read, and writes
// nothing.
func TestAmendOfWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"the outbox", "the entry"} {
		l := rootWithMuchToLose(t)
		names, err := l.Outbox().names()
		if err != nil || len(names) != 1 {
			t.Fatalf("%v, %v", names, err)
		}
		path := l.OutboxDir()
		if name == "the entry" {
			path = filepath.Join(path, names[0].file)
		}
		before := contents(t, l.Root())
		unreadable.While(t, l.Root(), path, func() {
			err := l.Outbox().Amend(names[0].id, func(e *Entry) { *e = Entry{ID: e.ID, Event: &Event{Message: "amended"}} })
			if !errors.Is(err, syscall.EACCES) {
				t.Errorf("%s: %v", name, err)
			}
		})
		after := contents(t, l.Root())
		for path, text := range before {
			if after[path] != text {
				t.Errorf("%s: %s was %q, and is %q", name, path, text, after[path])
			}
		}
	}
	// A damaged entry is no empty one, whatever change makes of it.
	l := rootWithMuchToLose(t)
	names, err := l.Outbox().names()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.OutboxDir(), names[0].file)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = l.Outbox().Amend(names[0].id, func(e *Entry) { *e = Entry{ID: names[0].id, Event: &Event{Message: "amended"}} })
	if b, readErr := os.ReadFile(path); err == nil || readErr != nil || string(b) != "{" {
		t.Errorf("%v; the file has %q, %v", err, b, readErr)
	}
}

// The first trust root of a node is complete, or the error says that there is none.
func TestTheFirstKeepTrust(t *testing.T) {
	t.Parallel()
	for n, ends := 0, false; !ends; n++ {
		l, err := At(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		left := n
		err = l.On(fsutil.Disk{Seam: failAt{&left}}).KeepTrust(map[string][]byte{"a": []byte("new")})
		ends = left >= 0 // no change failed
		b, readErr := os.ReadFile(filepath.Join(l.TrustDir(), "a"))
		if (err == nil) != ends || err != nil && !errors.Is(err, errFails) || err == nil && (readErr != nil || string(b) != "new") {
			t.Errorf("change %d: %v; trust has %q, %v", n, err, b, readErr)
		}
	}
}

// A trial that no command began, and that never began itself, is reported once, as an
// event of its own; nothing says that it is staged.
func TestAbandonWithoutACommand(t *testing.T) {
	t.Parallel()
	now := time.Now()
	v0, v1 := release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
	s := atRest(State{}, Stable, v0, now).report(now, Event{Code: release.RolledBack, CommandID: "before", Message: "an earlier one"})
	s = Begin(s, Trial{ID: "offline-1", Target: v1}, now)
	if got := reportIDs(s); !slices.Contains(got, entryID("offline-1", string(release.Staged))) {
		t.Fatalf("reports %q", got)
	}
	s = abandon(s, notBegun, now)
	want := []string{entryID("before", string(release.RolledBack)), entryID("offline-1", string(release.Internal))}
	if got := reportIDs(s); !slices.Equal(got, want) {
		t.Errorf("reports %q, want %q", got, want)
	}
	last := s.PendingReports[len(s.PendingReports)-1]
	if last.Ack != nil || last.Event == nil || last.Event.Reason != notBegun || last.Event.CommandID != "" || last.Event.From != v0 || last.Event.To != v1 || len(s.Commands) > 0 || s.TrialID != "" {
		t.Errorf("%+v, %+v", last, s)
	}
}

// Numbers out of their range, and a missing target, are no state.
func TestStatesThatAreNone(t *testing.T) {
	t.Parallel()
	const pending = `{"schema":1,"status":"pending_health","good":"1.0.0","target":"1.1.0","previous":"1.0.0","boot_attempts":0,"max_boot_attempts":10,"trial_id":"c"}`
	const staged = `{"schema":1,"status":"staged_manual","good":"1.0.0","target":"1.1.0","boot_attempts":0}`
	rolled := strings.Replace(staged, "staged_manual", "rolled_back", 1)
	for _, whole := range []string{pending, staged, rolled} {
		if _, err := Decode([]byte(whole)); err != nil {
			t.Errorf("%s: %v", whole, err)
		}
	}
	for _, tt := range []struct{ whole, from, to string }{
		{pending, `"max_boot_attempts":10`, `"max_boot_attempts":11`},
		{pending, `"max_boot_attempts":10`, `"max_boot_attempts":-1`},
		{pending, `"boot_attempts":0`, `"boot_attempts":-1`},
		{staged, `"boot_attempts":0`, `"boot_attempts":-1`},
		{staged, `"target":"1.1.0",`, ""},
		{rolled, `"target":"1.1.0",`, ""},
	} {
		bad := strings.Replace(tt.whole, tt.from, tt.to, 1)
		if s, err := Decode([]byte(bad)); err == nil || bad == tt.whole {
			t.Errorf("%s: %+v", bad, s)
		}
	}
}
