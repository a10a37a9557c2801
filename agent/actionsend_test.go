//go:build !sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/wire"
)

// TestACrashInAHandler is also the process that dies: its handler ends it.
func TestACrashInAHandler(t *testing.T) {
	t.Parallel()
	child := os.Getenv(crashRoot)
	var calls atomic.Int64
	served := make(chan bool)
	url := manager(t, func(p peer) {
		p.welcome()
		if child != "" {
			p.send(act("crash", "crash", ""))
			p.drain()
			return
		}
		for range 2 { // first without being asked again
			if got := p.ack("crash"); got.Success || got.ErrorCode != wire.ActionInterrupted || got.Error == "" {
				t.Errorf("after a crash: %+v", got)
			}
			p.send(act("crash", "crash", ""))
		}
		close(served)
		p.drain()
	})
	if child != "" {
		c := rootAt(t, child, url)
		c.Handlers = Handlers{"crash": func(context.Context, Command) (any, error) { os.Exit(42); return nil, nil }}
		runAgent(t, c)
		<-t.Context().Done()
		return
	}
	c := rootWith(t, url)
	c.Handlers = Handlers{"crash": func(context.Context, Command) (any, error) { calls.Add(1); return nil, nil }}
	at := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestACrashInAHandler$")
	cmd.Env = append(os.Environ(), crashRoot+"="+at)
	var exit *exec.ExitError
	if out, err := cmd.CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Fatalf("%v\n%s", err, out)
	}
	c.Service.InstallRoot = at
	runAgent(t, c)
	select {
	case <-served:
	case <-time.After(20 * time.Second):
		t.Error("timeout")
	}
	if calls.Load() > 0 {
		t.Error("the command was carried out again")
	}
}

// A stop ends the context of a handler. What ends then is answered as interrupted, and a
// command that did not begin is carried out by the next process.
func TestAStopWhileAHandlerRuns(t *testing.T) {
	t.Parallel()
	began := make(chan bool, 2)
	first, served := true, make(chan bool)
	c := rootWith(t, manager(t, func(p peer) {
		p.welcome()
		if first {
			first = false
			p.send(act("running", "wait", ""))
			p.send(act("waiting", "none", ""))
			p.drain()
			return
		}
		p.send(act("running", "wait", ""))
		if got := p.ack("running"); got.Success || got.ErrorCode != wire.ActionInterrupted {
			t.Errorf("after a stop: %+v", got)
		}
		p.send(act("waiting", "none", ""))
		if got := p.ack("waiting"); !got.Success {
			t.Errorf("a command that did not begin: %+v", got)
		}
		close(served)
		p.drain()
	}))
	c.Handlers = Handlers{
		"wait": func(ctx context.Context, _ Command) (any, error) { began <- true; <-ctx.Done(); return nil, ctx.Err() },
		"none": func(context.Context, Command) (any, error) { return nil, nil },
	}
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-began
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	runAgent(t, c)
	select {
	case <-served:
	case <-time.After(20 * time.Second):
		t.Error("timeout")
	}
}

// The records are bounded, and a damaged one is of a command that began.
func TestTheRecordsOfCommandsAreBounded(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := range state.MaxActionRecords + 3 {
		if err := l.Actions().Put(state.ActionRecord{ID: fmt.Sprint("id/", i), Action: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(filepath.Join(l.Root(), "actions"))
	if err != nil || len(files) != state.MaxActionRecords {
		t.Fatalf("%d records, %v", len(files), err)
	}
	if _, ok, err := l.Actions().Get("id/2"); ok || err != nil {
		t.Errorf("the oldest is there: %v", err)
	}
	if r, ok, err := l.Actions().Get("id/3"); !ok || err != nil || r.ID != "id/3" {
		t.Errorf("got %+v, %v, %v", r, ok, err)
	}
	if err := os.WriteFile(filepath.Join(l.Root(), "actions", files[0].Name()), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := l.Actions().Get("id/3"); !ok || !errors.Is(err, state.ErrActionDamaged) {
		t.Errorf("a damaged record: %v, %v", ok, err)
	}
	if rs, err := l.Actions().Interrupted(); err != nil || len(rs) != state.MaxActionRecords-1 {
		t.Errorf("%d are interrupted, %v", len(rs), err)
	}
}
