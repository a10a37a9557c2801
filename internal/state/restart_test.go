package state

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"golang.org/x/sys/unix"
)

func TestParseRestart(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("0a", 16)
	for text, want := range map[string]struct {
		invocation string
		start, ok  bool
	}{
		"":                                  {"", true, true},
		"      \n":                          {"", true, true},
		id:                                  {id, false, true},
		id + "\n":                           {id, false, true},
		id + " start\n":                     {id, true, true},
		id + " start":                       {id, true, true},
		id + "  start":                      {},
		id + " stop":                        {},
		" " + id:                            {},
		id + "a":                            {},
		id[1:]:                              {},
		" start":                            {},
		strings.ToUpper(id):                 {},
		id + "\n" + id:                      {},
		strings.Repeat("\x00", 39):          {},
		"-----------------app.service-----": {},
	} {
		invocation, start, err := parseRestart(text)
		if (err == nil) != want.ok || want.ok && (invocation != want.invocation || start != want.start) {
			t.Errorf("%q: %q %t %v", text, invocation, start, err)
		}
	}
}

// A request keeps its inode and its size, from whatever was there.
func TestAskRestartOverwrites(t *testing.T) {
	t.Parallel()
	l, err := At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("ab", 16)
	var first os.FileInfo
	for i, step := range []struct {
		invocation string
		start      bool
		want       string
	}{{"", true, ""}, {id, false, id}, {id, true, id + " start"}, {"", false, ""}, {id, false, id}} {
		if err := l.AskRestart(step.invocation, step.start); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(l.RestartFile())
		if err != nil || len(b) != restartSize || strings.TrimSpace(string(b)) != step.want {
			t.Errorf("step %d: %q, %v", i, b, err)
		}
		st, err := os.Stat(l.RestartFile())
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = st
		}
		if !os.SameFile(first, st) {
			t.Errorf("step %d: another file", i)
		}
		if i == 2 || i == 3 {
			if err := l.WithdrawRestart(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(l.RestartFile()); err == nil {
				t.Error("a withdrawn request is there")
			}
		}
	}
	if err := l.WithdrawRestart(); err != nil {
		t.Fatal(err)
	}
	if err := l.WithdrawRestart(); err != nil {
		t.Errorf("nothing to withdraw: %v", err)
	}
	if err := l.AskRestart("no id", false); err == nil {
		t.Error("a request without an id")
	}
	// A full disk that has no block for the file of an earlier agent, which is empty.
	os.RemoveAll(l.RestartFile())
	if err := os.WriteFile(l.RestartSpare(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	full := l.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
		if op.Kind == fsutil.OpWrite || op.Kind == fsutil.OpCreate && op.Path != l.RestartSpare() {
			return unix.ENOSPC
		}
		return make()
	})})
	if err := full.AskRestart(id, false); err != nil {
		t.Errorf("on a full disk: %v", err)
	}
	if invocation, start, ok, err := l.ReadRestart(); invocation != "" || !start || !ok || err != nil {
		t.Errorf("on a full disk: %q %t %t %v", invocation, start, ok, err)
	}
	// What else may have those names.
	for _, make := range []func() error{
		func() error { return os.Symlink("/etc/passwd", l.RestartFile()) },
		func() error { return syscall.Mkfifo(l.RestartFile(), 0o600) },
		func() error { return os.WriteFile(l.RestartFile(), []byte(strings.Repeat("x", 5000)), 0o600) },
		func() error { return os.WriteFile(l.RestartSpare(), nil, 0o400) },
		func() error { return os.Mkdir(l.RestartSpare(), 0o700) },
	} {
		os.RemoveAll(l.RestartFile())
		os.RemoveAll(l.RestartSpare())
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if _, _, ok, err := l.ReadRestart(); ok || err != nil && !strings.Contains(err.Error(), "remove it: rm -rf "+l.RestartFile()) && !strings.Contains(err.Error(), "symbolic links") {
			t.Errorf("read: %t, %v", ok, err)
		}
		err := l.AskRestart(id, true)
		if b, e := os.ReadFile(l.RestartFile()); err != nil || e != nil || strings.TrimSpace(string(b)) != id+" start" {
			t.Errorf("%q, %v, %v", b, err, e)
		}
	}
}

// A request is written without the root's lock, also while an agent starts and removes what a
// crash left.
func TestARequestSurvivesTheStartOfAnAgent(t *testing.T) {
	t.Parallel()
	l, err := At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		var starts sync.WaitGroup
		starts.Go(func() {
			if err := l.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
		err := l.AskRestart("", true)
		starts.Wait()
		if err := errors.Join(err, os.Remove(l.RestartFile())); err != nil {
			t.Fatal(err)
		}
	}
}
