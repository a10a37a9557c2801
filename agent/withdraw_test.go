//go:build !sim

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/bilbycast/edge-agent/wire"
)

func withdrawal(id, of string) *wire.Command {
	return &wire.Command{CommandID: id, Action: wire.Action{Type: wire.ActionWithdraw, CommandID: of}}
}

// outcomes reads acks and events until there are so many acks, and so many events that say how
// an upgrade ended. An event may come after what happened later, so also upgrade_started.
func (p peer) outcomes(acks, events int) (acked map[string]*wire.CommandAck, codes map[string][]release.Code, last *wire.Event) {
	p.t.Helper()
	acked, codes = map[string]*wire.CommandAck{}, map[string][]release.Code{}
	p.until("the outcomes", func(m wire.Message) bool {
		switch m := m.(type) {
		case *wire.CommandAck:
			acked[m.CommandID] = m
			acks--
		case *wire.Event:
			codes[m.Details.CommandID] = append(codes[m.Details.CommandID], m.Details.ErrorCode)
			if m.Details.ErrorCode != release.Started {
				last = m
				events--
			}
		}
		return acks <= 0 && events <= 0
	})
	return acked, codes, last
}

// waits waits until the download of a command waits for its host.
func (p peer) waits() *wire.Hold {
	p.t.Helper()
	h, _ := p.until("a health that says what the download waits for", func(m wire.Message) bool {
		h, ok := m.(*wire.Health)
		return ok && h.Hold != nil
	}).(*wire.Health)
	if h == nil {
		return &wire.Hold{}
	}
	return h.Hold
}

// The manager withdraws an upgrade whose download waits for a host that cannot be reached. The
// next upgrade begins at once.
func TestAManagerWithdrawsAnUpgrade(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	c := rootWith(t, manager(t, func(p peer) {
		if !slices.Contains(p.auth.Features, wire.FeatureWithdraw) {
			t.Errorf("features of auth: %q", p.auth.Features)
		}
		p.welcome()
		if p.auth.NodeID == "" {
			return
		}
		defer close(done)
		p.send(upgradeTo("one", "1.1.0"))
		if h := p.waits(); !strings.Contains(h.Reason, "the release host: fetch https://") || h.Since.IsZero() || !h.Until.IsZero() {
			t.Errorf("hold: %+v", h)
		}
		p.send(withdrawal("w", "one"))
		acked, codes, last := p.outcomes(2, 1)
		if a := acked["w"]; a == nil || !a.Success {
			t.Errorf("the withdrawal: %+v", a)
		}
		if a := acked["one"]; a == nil || a.Success || a.ErrorCode != release.Withdrawn {
			t.Errorf("the upgrade: %+v", a)
		}
		if got := codes["one"]; len(got) == 0 || got[len(got)-1] != release.Withdrawn || last.Severity != release.Info || last.Details.ToVersion != "1.1.0" {
			t.Errorf("events: %v, %+v", got, last)
		}
		// Again, of no command, of an unknown one, and of itself.
		for id, of := range map[string]string{"again": "one", "none": "", "unknown": "x", "itself": "itself", "long": strings.Repeat("x", 9000)} {
			p.send(withdrawal(id, of))
			if a := p.ack(id); a.Success != (id == "again") || !a.Success && (a.ErrorCode != wire.ActionFailed || a.Error == "" || len(a.Error) > maxReason) {
				t.Errorf("%s: %+v", id, a)
			}
		}
		p.send(upgradeTo("one", "1.1.0")) // repeated: the recorded outcome
		if a := p.ack("one"); a.ErrorCode != release.Withdrawn {
			t.Errorf("repeated: %+v", a)
		}
		p.send(upgradeTo("two", "1.2.0"))
		p.waits()
		p.send(withdrawal("w2", "two"))
		p.send(upgradeTo("three", "1.3.0"))
		p.until("the next upgrade", func(m wire.Message) bool {
			e, ok := m.(*wire.Event)
			return ok && e.Details.CommandID == "three" && e.Details.ErrorCode == release.Started
		})
	}))
	c.Manager.Proxy, _ = refusingProxy(t, http.StatusServiceUnavailable) // no host can be reached
	runAgent(t, c)
	<-done
}

// An operator on the device discards the upgrade: the agent stops it, and reports it.
func TestAnOperatorDiscardsAnUpgrade(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	root := t.TempDir()
	l, err := state.At(root)
	if err != nil {
		t.Fatal(err)
	}
	c := rootAt(t, root, manager(t, func(p peer) {
		p.welcome()
		if p.auth.NodeID == "" {
			return
		}
		defer close(done)
		p.send(upgradeTo("one", "1.1.0"))
		p.waits()
		if _, err := upgrade.Discard(t.Context(), l); err != nil {
			t.Error(err)
		}
		acked, codes, last := p.outcomes(1, 1)
		if a := acked["one"]; a == nil || a.ErrorCode != release.Withdrawn || !slices.Contains(codes["one"], release.Withdrawn) || !strings.Contains(last.Message, "an operator withdrew") {
			t.Errorf("%+v, %v", a, codes)
		}
		p.until("a node that waits for nothing", func(m wire.Message) bool {
			h, ok := m.(*wire.Health)
			return ok && h.Hold == nil
		})
	}))
	c.Manager.Proxy, _ = refusingProxy(t, http.StatusServiceUnavailable) // no host can be reached
	a := runAgent(t, c)
	<-done
	wait(t, "the staging to end", func() bool { return !a.isBusy() })
}

// An upgrade that was withdrawn while its node was down is not resumed, also once others came
// after it.
func TestAWithdrawnUpgradeIsNotResumed(t *testing.T) {
	t.Parallel()
	cmd := state.Command{ID: "mine", Version: release.MustVersion("1.1.0"), Channel: "stable"}
	for name, then := range map[string]func(state.State, time.Time) state.State{
		"withdrawn": func(s state.State, _ time.Time) state.State { return s },
		"forgotten": func(s state.State, now time.Time) state.State {
			for i := range state.MaxCommands {
				id := fmt.Sprint("r", i)
				s = state.Fail(state.Accept(s, state.Command{ID: id, Version: cmd.Version}), id, release.VersionInvalid, "x", now)
			}
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := rootWith(t, "wss://127.0.0.1:1")
			l, err := state.At(c.Service.InstallRoot)
			if err != nil {
				t.Fatal(err)
			}
			log := &lines{}
			c.Log = logTo(log, slog.LevelDebug)
			o, err := newOf(c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.AtStart().Do(t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
				s, err := state.Withdraw(state.Accept(s, cmd), "", "an operator withdrew", now)
				return then(s, now), tr, err
			}); err != nil {
				t.Fatal(err)
			}
			o.resumeNow(t.Context(), cmd) // as it was when its trial's result was waited for
			if o.isBusy() || !strings.Contains(log.String(), "withdrawn meanwhile") {
				t.Errorf("resumed: %s", log)
			}
		})
	}
}

// A manager that withdraws commands without end costs neither work nor log lines without end.
// The command that is staged can be withdrawn all the same.
func TestWithdrawalsAreLimited(t *testing.T) {
	t.Parallel()
	c := rootWith(t, "wss://127.0.0.1:1")
	log := &lines{}
	c.Log = logTo(log, slog.LevelDebug)
	o, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if a := o.withdraw(t.Context(), withdrawal(fmt.Sprint("w", i), "unknown")); a.Success || a.ErrorCode != wire.ActionFailed || a.Error == "" {
			t.Errorf("%+v", a)
		}
	}
	if n := strings.Count(log.String(), "upgrade not withdrawn"); n != refusalBurst {
		t.Errorf("%d lines", n)
	}
	cmd := state.Command{ID: "mine", Version: release.MustVersion("1.1.0"), Channel: "stable"}
	if _, err := o.c.Layout.AtStart().Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.Accept(s, cmd), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	run := &stagingRun{"mine", ctx, stop, make(chan struct{})}
	context.AfterFunc(ctx, func() { close(run.done) })
	o.stagingNow, o.busy = run, true
	if a := o.withdraw(t.Context(), withdrawal("w", "mine")); !a.Success {
		t.Errorf("%+v", a)
	}
	res, err := o.c.Layout.Read()
	if err != nil {
		t.Fatal(err)
	}
	req := release.Request{Version: release.MustVersion("1.2.0")}
	if err := o.refuse(req, res.State, res.Tree); release.CodeOf(err) != release.InProgress || !strings.Contains(err.Error(), "the upgrade of command mine was withdrawn") {
		t.Errorf("while its staging ends: %v", err)
	}
}
