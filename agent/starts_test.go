//go:build !sim

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
	"github.com/bilbycast/edge-agent/wire"
)

// Health messages report why upgrades are not offered.
func TestUpgradesAreOfferedOnlyIfAWatchdogRan(t *testing.T) {
	t.Parallel()
	for _, ran := range []bool{false, true} {
		t.Run(fmt.Sprint(ran), func(t *testing.T) {
			t.Parallel()
			got := make(chan *wire.Health, 1)
			code := make(chan release.Code, 1)
			url := manager(t, func(p peer) {
				p.welcome()
				if p.auth.NodeID != "" {
					return
				}
				got <- p.until("health", func(m wire.Message) bool { _, ok := m.(*wire.Health); return ok }).(*wire.Health)
				if !ran {
					p.send(upgradeTo("c", "1.1.0"))
					code <- p.ack("c").ErrorCode
				}
			})
			a, err := newOf(rootWith(t, url))
			if err != nil {
				t.Fatal(err)
			}
			if ran {
				watchdog.Run(t.Context(), a.c.Layout)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- a.Run(ctx) }()
			h := <-got
			if offered := len(h.Capabilities) == 1; offered != ran || (h.UpgradeUnavailable == "") != ran {
				t.Errorf("capabilities %v, because %q", h.Capabilities, h.UpgradeUnavailable)
			}
			if !ran {
				if !strings.Contains(h.UpgradeUnavailable, "no watchdog ran before this start") || !strings.Contains(h.UpgradeUnavailable, "edge-agent unit") {
					t.Errorf("the reason is %q", h.UpgradeUnavailable)
				}
				if c := <-code; c != release.Internal {
					t.Errorf("an upgrade: %s", c)
				}
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// Without a watchdog a trial ends all the same: the agent counts.
func TestATrialWithoutAWatchdogEnds(t *testing.T) {
	t.Parallel()
	for name, older := range map[string]bool{"no watchdog": false, "a watchdog that records no start": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newTrial(t, t.TempDir()) // its first start was counted by a watchdog
			l := o.c.Layout
			if !older {
				if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
					s.BootAttempts = 0
					return s, tr, nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			for start := 1; ; start++ {
				a := newAgent(o.c)
				err := a.countStart(t.Context())
				res, readErr := l.Read()
				if readErr != nil {
					t.Fatal(readErr)
				}
				if start > 3 {
					if err == nil || res.State.Status != state.RolledBack || res.Tree.Current.String() != "1.0.0" {
						t.Errorf("start %d: %v, %s, %s", start, err, res.State.Status, res.Tree.Current)
					}
					break
				}
				if err != nil || res.State.BootAttempts != start {
					t.Errorf("start %d: %v, counted %d", start, err, res.State.BootAttempts)
				}
				if counted := a.uncountedErr == nil; counted != (older && start == 1) {
					t.Errorf("start %d: %v", start, a.uncountedErr)
				}
				a.recordFailedStart(t.Context(), res.State, fmt.Errorf("cause %d", start))
			}
			res, _ := l.Read()
			if got, _ := json.Marshal(res.State.FailedStarts); string(got) != `["cause 1","cause 2","cause 3"]` {
				t.Errorf("failed starts: %s", got)
			}
		})
	}
}

// The watchdog counts a start, or does not because the one before it was no fault of the version,
// and is killed before it records that it ran: the agent does not count the start once more.
func TestAStartWhoseWatchdogIsKilledCountsOnce(t *testing.T) {
	t.Setenv("SYSTEMD_EXEC_PID", strconv.Itoa(os.Getpid()))
	c, l, _, _ := aloneOnTrial(t)
	if err := l.RecordSwap(state.SwapRecord{TrialID: "c", From: release.MustVersion("1.0.0")}); err != nil {
		t.Fatal(err)
	}
	attempts := 0
	for start := 1; start <= 4; start++ {
		t.Setenv("INVOCATION_ID", fmt.Sprint("start", start))
		s := watchdog.Systemd{Restarts: func(context.Context) (int, error) { return 0, nil }}
		attempts = watchdog.RunAfter(t.Context(), l, s).BootAttempts
		l.TakeStart() // nothing is recorded besides the count
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.countStart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if res, err := l.Read(); err != nil || res.State.BootAttempts != attempts {
			t.Errorf("start %d: %d counted, and %d by its watchdog (%v)", start, res.State.BootAttempts, attempts, err)
		}
	}
	if attempts > 2 {
		t.Errorf("%d starts count, and an operator made each", attempts)
	}
}

// An operator rolls back while the node drains, and another command arrives: the
// node restarts once, and stages nothing more.
func TestACommandAfterTheSwapIsRefused(t *testing.T) {
	t.Parallel()
	o := newTrial(t, t.TempDir())
	o.c.Policy = release.Policy{Enabled: true, Channels: []string{"stable"}}
	o.busy = true // as begin does
	o.closeSwap()
	if _, err := o.do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.RollBack(s, tr, release.Version{}, time.Now())
	}); err != nil {
		t.Fatal(err)
	}
	ack := func(id string) *wire.CommandAck {
		o.upgrade(t.Context(), upgradeTo(id, "1.2.0"))
		res, err := o.c.Layout.Read()
		if err != nil {
			t.Fatal(err)
		}
		c, _ := res.State.Command(id)
		return o.ack(c)
	}
	if a := ack("next"); a.ErrorCode != release.InProgress {
		t.Errorf("%+v", a)
	}
	o.closeSwap() // twice is once
	o.staging.Wait()
}

// A restart in the middle of staging begins the same command again.
func TestAnInterruptedUpgradeIsResumed(t *testing.T) {
	t.Parallel()
	log := &lines{}
	c := rootWith(t, "wss://127.0.0.1:1")
	c.Log = logTo(log, slog.LevelDebug)
	c.Manager.Proxy = config.NewSecret("http://127.0.0.1:1") // neither the manager nor the release host is reached
	c.Upgrade.AllowedChannels = []string{"beta"}
	l, err := state.At(c.Service.InstallRoot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.AtStart().Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.Accept(s, state.Command{ID: "mine", Version: release.MustVersion("1.1.0"), Channel: "beta"}), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	runAgent(t, c)
	wait(t, "resumed", func() bool { return strings.Contains(log.String(), "resuming it") })
	if strings.Contains(log.String(), `"level":"error"`) {
		t.Errorf("an ordinary reboot is an error: %s", log)
	}
	res, err := l.Read()
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := res.State.Command("mine"); got.Done || got.Resumed != 1 {
		t.Errorf("the command: %+v", got)
	}
}

// An answer of systemd that did not come in time neither refuses upgrades nor offers them
// again: the answer before stays. The first question is bounded.
func TestNoAnswerOfSystemdChangesNothing(t *testing.T) {
	t.Parallel()
	a, err := newOf(rootWith(t, "wss://m"))
	if err != nil {
		t.Fatal(err)
	}
	unfit := errors.New("edge.service has Restart=no")
	for i, tt := range []struct{ answer, want error }{
		{context.DeadlineExceeded, nil},
		{unfit, unfit},
		{fmt.Errorf("systemctl: %w", context.DeadlineExceeded), unfit},
		{nil, nil},
		{os.ErrDeadlineExceeded, nil},
	} {
		a.c.CheckUnit = func(context.Context) error { return tt.answer }
		if answered := a.checkUnit(t.Context()); fmt.Sprint(a.unavailable()) != fmt.Sprint(tt.want) || answered == isTimeout(tt.answer) {
			t.Errorf("%d: %v, answered %t; want %v", i, a.unavailable(), answered, tt.want)
		}
	}
	a.c.CheckUnit = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	if a.checkUnitFirst(t.Context()) { // ends by itself
		t.Error("the first question waited for an answer")
	}
}
