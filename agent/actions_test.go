//go:build !sim

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/wire"
)

// act is a command of the author's.
func act(id, action, params string) *wire.Command {
	return &wire.Command{CommandID: id, Action: wire.Action{Type: action, Params: json.RawMessage(params)}}
}

func TestHandlersAreChecked(t *testing.T) {
	t.Parallel()
	ok := func(context.Context, Command) (any, error) { return nil, nil }
	many := Handlers{}
	for i := range wire.MaxActions + 1 {
		many[fmt.Sprint("a", i)] = ok
	}
	for want, o := range map[string]Options{
		`Options.Handlers["upgrade_binary"]: the action "upgrade_binary" is reserved`:   {Handlers: Handlers{"upgrade_binary": ok}},
		`Options.Handlers["upgrade_to_come"]: the action "upgrade_to_come" is reserved`: {Handlers: Handlers{"upgrade_to_come": ok}},
		`Options.Handlers["get_config"]: the action "get_config" is reserved`:           {Handlers: Handlers{"get_config": ok}},
		`Options.Handlers["Reboot"]: the action "Reboot" is not a lower-case letter`:    {Handlers: Handlers{"Reboot": ok}},
		`Options.Handlers[""]: the name of an action is empty`:                          {Handlers: Handlers{"": ok}},
		`has 65 bytes, more than 64`:                    {Handlers: Handlers{strings.Repeat("a", 65): ok}},
		`Options.Handlers is a nil *agent.Handlers`:     {Handlers: (*Handlers)(nil)},
		`Options.Handlers["reboot"] is nil`:             {Handlers: Handlers{"reboot": nil}},
		`Options.Handlers has 65 entries, more than 64`: {Handlers: many},
		`Options.HandlerTimeout is 25h0m0s`:             {HandlerTimeout: 25 * time.Hour},
		`Options.HandlerTimeout is -1s`:                 {Handlers: Handlers{"reboot": ok}, HandlerTimeout: -time.Second},
	} {
		c := bareNode(t)
		c.Handlers, c.HandlerTimeout = o.Handlers, o.HandlerTimeout
		if _, err := newOf(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if _, err := newOf(c); len(config.Errors(err)) != 1 || !strings.HasPrefix(config.Errors(err)[0].Key, "Options.Handler") || config.Errors(err)[0].Rule == "" {
			t.Errorf("%v has no key and rule", err)
		}
	}
	c := bareNode(t)
	c.Handlers = Handlers{"reboot": ok, strings.Repeat("a", 64): ok, "a_1": ok}
	if _, err := newOf(c); err != nil {
		t.Error(err)
	}
}

// A handler gets the command, and its result or error is the answer. A command that is
// repeated, also after a restart, gets the same answer, and is carried out once.
func TestACommandHasItsResultOnce(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	handlers := Handlers{
		"echo": func(_ context.Context, c Command) (any, error) {
			calls.Add(1)
			var in struct{ Text string }
			err := json.Unmarshal(c.Params, &in)
			return map[string]string{"id": c.ID, "action": c.Action, "text": in.Text}, errors.Join(err, rawIs(c))
		},
		"fail":   func(context.Context, Command) (any, error) { return "lost", errors.New("no\nsignal") },
		"panic":  func(context.Context, Command) (any, error) { panic("no map") },
		"none":   func(context.Context, Command) (any, error) { return nil, nil },
		"long":   func(context.Context, Command) (any, error) { return strings.Repeat("<", wire.MaxResult/6+1), nil },
		"most":   func(context.Context, Command) (any, error) { return strings.Repeat("a", wire.MaxResult-2), nil },
		"cyclic": func(context.Context, Command) (any, error) { return make(chan int), nil },
	}
	want := map[string]wire.CommandAck{
		"echo":   {Success: true, Result: json.RawMessage(`{"action":"echo","id":"echo","text":"a\nb"}`)},
		"fail":   {ErrorCode: wire.ActionFailed, Error: "no signal"},
		"panic":  {ErrorCode: wire.ActionFailed, Error: `Options.Handlers["panic"] panicked: no map`},
		"none":   {Success: true},
		"long":   {ErrorCode: wire.ActionFailed, Error: "the result has 65540 bytes as JSON, more than 65536"},
		"most":   {Success: true, Result: json.RawMessage(`"` + strings.Repeat("a", wire.MaxResult-2) + `"`)},
		"cyclic": {ErrorCode: wire.ActionFailed, Error: "the result cannot be encoded as JSON: json: unsupported type: chan int"},
		"format": {ErrorCode: wire.UnknownAction, Error: `this node does not support the action "format"`},
	}
	const announced = "[cyclic echo fail long most none panic]"
	sessions, ended := 0, make(chan bool, 1)
	c := rootWith(t, manager(t, func(p peer) {
		sessions++
		if got := fmt.Sprint(p.auth.Actions); got != announced {
			t.Errorf("the node announced %s, want %s", got, announced)
		}
		p.welcome()
		for name, w := range want {
			for range 2 {
				p.send(act(name, name, secretParams))
				got := p.ack(name)
				w.CommandID = name
				if fmt.Sprint(*got) != fmt.Sprint(w) {
					t.Errorf("session %d: %s: got %.300v, want %.300v", sessions, name, *got, w)
				}
			}
		}
		p.send(act("big", "echo", `"`+strings.Repeat("a", wire.MaxParams)+`"`))
		if got := p.ack("big"); got.Success || got.ErrorCode != wire.ParamsTooLarge {
			t.Errorf("too many parameters: %+v", got)
		}
		ended <- true
		p.drain()
	}))
	log := &lines{}
	c.Handlers, c.Log = handlers, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for range 2 {
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Error("timeout")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the command was carried out %d times", n)
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the parameters are in the log: %s", log)
	}
	err := fs.WalkDir(os.DirFS(c.Service.InstallRoot), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(c.Service.InstallRoot, path))
		if strings.Contains(string(b), "hunter2") {
			t.Errorf("%s has the parameters", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

const secretParams = `{"text":"a\nb","key":"hunter2"}`

// rawIs returns an error unless the command has its whole action.
func rawIs(c Command) error {
	if want := `{"type":"` + c.Action + `","params":` + secretParams + `}`; string(c.Raw) != want {
		return fmt.Errorf("raw is %s, want %s", c.Raw, want)
	}
	return nil
}

// A handler that hangs delays no upgrade and no message of the session. It is abandoned at its
// limit: its action is refused while it runs, other actions are served.
func TestAHandlerThatHangs(t *testing.T) {
	t.Parallel()
	release, began := make(chan bool), make(chan bool, 1)
	defer close(release)
	c := rootWith(t, manager(t, func(p peer) {
		p.welcome()
		p.send(act("hangs", "hang", ""))
		<-began
		p.send(upgradeTo("u", "0.1.0"))
		if got := p.ack("u"); got.Success {
			t.Errorf("a downgrade: %+v", got)
		}
		if got := p.ack("hangs"); got.Success || got.ErrorCode != wire.ActionTimeout || !strings.Contains(got.Error, "did not return within its 50ms") {
			t.Errorf("a handler that hangs: %+v", got)
		}
		p.send(act("again", "hang", ""))
		if got := p.ack("again"); got.Success || got.ErrorCode != wire.ActionBusy {
			t.Errorf("while it is abandoned: %+v", got)
		}
		p.send(act("other", "other", ""))
		if got := p.ack("other"); !got.Success {
			t.Errorf("another action: %+v", got)
		}
		p.send(act("slow", "slow", ""))
		if got := p.ack("slow"); got.Success || got.ErrorCode != wire.ActionTimeout || got.Error != "context deadline exceeded" {
			t.Errorf("a handler that obeys its context: %+v", got)
		}
		began <- true
		p.drain()
	}))
	c.HandlerTimeout = 50 * time.Millisecond
	c.Handlers = Handlers{
		"hang":  func(context.Context, Command) (any, error) { began <- true; <-release; return nil, nil },
		"other": func(context.Context, Command) (any, error) { return nil, nil },
		"slow":  func(ctx context.Context, _ Command) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
	}
	runAgent(t, c)
	wait(t, "the session", func() bool { return len(began) > 0 })
	<-began
}

// Of more commands than may wait, the last are refused, and none is lost.
func TestManyCommands(t *testing.T) {
	t.Parallel()
	release, began, served := make(chan bool), make(chan bool, 100), make(chan bool)
	c := rootWith(t, manager(t, func(p peer) {
		p.welcome()
		p.send(act("0", "hang", ""))
		<-began
		for i := range maxWaitingActions + 2 {
			p.send(act(fmt.Sprint(i), "hang", "")) // 0 runs already
		}
		if got := p.ack(fmt.Sprint(maxWaitingActions + 1)); got.ErrorCode != wire.ActionBusy {
			t.Errorf("too many commands: %+v", got)
		}
		close(release)
		for i := range maxWaitingActions + 1 {
			if got := p.ack(fmt.Sprint(i)); !got.Success {
				t.Errorf("command %d: %+v", i, got)
			}
		}
		close(served)
		p.drain()
	}))
	c.Handlers = Handlers{"hang": func(context.Context, Command) (any, error) { began <- true; <-release; return nil, nil }}
	runAgent(t, c)
	select {
	case <-served:
	case <-time.After(20 * time.Second):
		t.Error("timeout")
	}
}

// A command that cannot be recorded is not carried out, since it could be carried out twice.
func TestACommandThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	full.Store(true)
	var calls atomic.Int64
	served := make(chan bool)
	c := rootWith(t, manager(t, func(p peer) {
		p.welcome()
		p.send(act("a", "count", ""))
		if got := p.ack("a"); got.Success || got.ErrorCode != wire.ActionFailed || !strings.Contains(got.Error, "could not be recorded") {
			t.Errorf("with a full disk: %+v", got)
		}
		full.Store(false)
		p.send(act("b", "count", ""))
		if got := p.ack("b"); !got.Success {
			t.Errorf("afterwards: %+v", got)
		}
		close(served)
		p.drain()
	}))
	c.Handlers = Handlers{"count": func(context.Context, Command) (any, error) { calls.Add(1); return nil, nil }}
	runOn(t, c, fullDisk{&full, "actions"})
	select {
	case <-served:
	case <-time.After(20 * time.Second):
		t.Error("timeout")
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d commands were carried out", n)
	}
}

const crashRoot = "EDGE_AGENT_TEST_CRASH_ROOT"
