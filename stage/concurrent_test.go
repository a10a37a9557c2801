package stage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
)

// The agent, the watchdog and operators at the command line work on one root
// at once. At every instant current points to a complete version, and in the end
// the reports of each command agree.
func TestAllAtOnce(t *testing.T) {
	t.Parallel()
	host := setup(t, nil)
	rs := verified(t, host)
	m := &matrix{digests: map[string]bool{}}
	root := filepath.Join(t.TempDir(), "root")
	s, err := at(host.Config, root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := oldRoot(s.Layout); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{bigVersion, newVersion} { // what they are when complete
		if _, err := s.Stage(t.Context(), s.Host(rs[v].rel.Manifest().Version), rs[v].rel, rs[v].art, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.learn(s.Layout); err != nil {
		t.Fatal(err)
	}

	ctx, done := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	beside := func(f func(s *Stager)) {
		s, err := at(host.Config, root, nil) // as another process has it
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				f(s)
			}
		})
	}
	beside(func(s *Stager) { watchdog.Run(t.Context(), s.Layout) })
	var changes atomic.Int64 // since the last delivery: the outbox drops the oldest of a thousand reports
	beside(func(s *Stager) {
		if changes.Load() > 200 {
			return
		}
		change := []state.Change{
			func(st state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
				return state.Apply(st, tr, now)
			},
			func(st state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
				return state.RollBack(st, tr, release.Version{}, now)
			},
		}[rand.IntN(2)]
		if _, err := s.Layout.Do(t.Context(), change); err == nil { // mostly refused
			changes.Add(1)
		}
		if _, err := s.Layout.Read(); err != nil {
			t.Error(err)
		}
	})
	beside(func(s *Stager) {
		to, err := os.Readlink(s.Layout.Current())
		if err != nil {
			t.Error(err)
			return
		}
		if st, err := os.Stat(filepath.Join(root, to, "edge-agent")); err != nil || st.Size() == 0 {
			// It may have been pruned since; what current points to now may not.
			if now, _ := os.Readlink(s.Layout.Current()); now == to {
				t.Errorf("current points to %s: %v", to, err)
			}
		}
	})

	p := promised{}
	staged := 0
	rounds := 20
	if testing.Short() {
		rounds = 8
	}
	for i := range rounds {
		to := []string{bigVersion, newVersion}[i%2]
		commit := []func(context.Context, state.Layout, Staged, state.Trial) (state.Result, error){Swap, Shelve}[i/2%2]
		err := upgradeAs(rs, fmt.Sprint("c", i), to, commit)(t.Context(), s, &p)
		if err == nil {
			staged++
		} else if c := code(err); c != release.InProgress && c != release.Internal {
			t.Errorf("%s: %v", to, err)
		}
		for line := range strings.Lines(fmt.Sprint(errors.Join(prove(t.Context(), s, nil), deliver(t.Context(), s, &p)))) {
			// The other goroutines may read a version while it is to be removed, and have ended that
			// when the process is looked for.
			kept := strings.Contains(line, fmt.Sprintf("is kept: process %d ", os.Getpid())) || strings.Contains(line, "is kept: a process that this user cannot see ")
			if line != "<nil>" && !kept {
				t.Error(line)
			}
		}
		changes.Store(0)
	}
	done()
	wg.Wait()
	p.commands = p.commands[max(0, len(p.commands)-state.MaxCommands):] // older ones are forgotten
	p.delivered = slices.DeleteFunc(p.delivered, func(e state.Entry) bool {
		return e.Event != nil && e.Event.CommandID != "" && !slices.Contains(p.commands, e.Event.CommandID)
	})
	m.start(t.Context(), host.Config, root, "all at once", true, nil, p, true)
	m.report(t)
	if staged < rounds/4 {
		t.Errorf("only %d upgrades were staged", staged)
	}
	t.Logf("%d of %d upgrades were staged", staged, rounds)
}
