//go:build !sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/trial"
)

// olderUnit is a unit whose processes cannot be looked at.
type olderUnit struct{ fakeUnit }

func (olderUnit) Older(context.Context) (string, error) { return "", errors.New("fork: no memory") }

// slowUnit answers late whether it is fit.
type slowUnit struct{ fakeUnit }

func (slowUnit) Fit(context.Context) error { time.Sleep(2 * time.Second); return nil }

// A bad version is rolled back although the record of its starts lags behind the count: a
// watchdog could not write it, or could not count.
func TestAnAttachedRecordThatLags(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*testing.T, *service) (undo func()){
		"starts.json was not written": func(t *testing.T, s *service) func() {
			res, err := s.l.Read()
			if err != nil {
				t.Error(err)
			}
			old, known := s.l.ReadStarts(res.State)
			return func() {
				if res, err := s.l.Read(); err != nil || known && s.l.RecordStarts(old) != nil {
					t.Error(res, err)
				}
			}
		},
		"the root is locked": func(t *testing.T, s *service) func() {
			lock, err := fsutil.LockFile(t.Context(), filepath.Join(s.l.Root(), ".lock"), time.Minute) // as another process
			if err != nil {
				t.Error(err)
				return func() {}
			}
			time.AfterFunc(45*time.Second, func() { lock.Unlock() })
			return func() {}
		},
	} {
		for _, blind := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, without a watchdog %v", name, blind), func(t *testing.T) {
				t.Parallel()
				c, l := attachedRoot(t)
				c.Check = failsOn110(&c)
				synctest.Test(t, func(t *testing.T) {
					s, began := newService(l), time.Now()
					if s.blind = blind; blind {
						if err := l.RecordStartOf(s.invocation()); err != nil {
							t.Fatal(err)
						}
					}
					u := s.unit()
					restart := u.restart
					u.restart = func(start string, again bool) error {
						if s.n != 2 {
							return restart(start, again)
						}
						undo := fault(t, s) // in the second start of 1.1.0
						err := restart(start, again)
						undo()
						if errors.Is(err, context.DeadlineExceeded) || name == "the root is locked" {
							return nil
						}
						return err
					}
					if res := attend(t, c, l, u, decided); res.State.Status != state.RolledBack || time.Since(began) > 5*time.Minute {
						t.Errorf("after %v and %d starts: %+v", time.Since(began), s.n, res.State)
					}
				})
			})
		}
	}
}

// Without a watchdog a version is rolled back although no look ever sees it up, or its first
// command hangs.
func TestAnAttachedVersionThatIsNeverUp(t *testing.T) {
	t.Parallel()
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs %v", hangs), func(t *testing.T) {
			t.Parallel()
			c, l := attachedRoot(t)
			if hangs {
				c.Check = failsOn110(&c)
			}
			synctest.Test(t, func(t *testing.T) {
				s, began := newService(l), time.Now()
				if s.blind = true; l.RecordStartOf(s.invocation()) != nil {
					t.Fatal("no record")
				}
				u := s.unit()
				look := u.look
				u.look = func() (trial.Service, error) {
					v, err := look()
					if to, e := l.Tree(); e != nil || to.Current.String() != "1.1.0" || s.n == 1 {
						return v, errors.Join(err, e)
					}
					if v.Active = false; hangs { // ExecStartPre=, with TimeoutStartSec=infinity
						v.Ran = false
						return v, err
					}
					crash := int(time.Since(began) / (5 * time.Second))
					v.Invocation, v.Restarts, v.State, v.Retries = fmt.Sprint("crash ", crash), crash, trial.Between, true
					return v, err
				}
				res := attend(t, c, l, u, decided)
				if took := time.Since(began); res.State.Status != state.RolledBack || took > 5*time.Minute {
					t.Errorf("after %v: %+v", took, res.State)
				}
			})
		})
	}
}

// A service that is between two starts for ever keeps no newer version out. Where nothing runs
// any more, and no start of the new version began, the swap is taken back.
func TestAnAttachedServiceBetweenTwoStarts(t *testing.T) {
	t.Parallel()
	for _, queued := range []bool{false, true} {
		t.Run(fmt.Sprintf("queued %v", queued), func(t *testing.T) {
			t.Parallel()
			c, l := attachedRoot(t)
			synctest.Test(t, func(t *testing.T) {
				s := newService(l)
				s.deaf = true
				u := s.unit()
				look := u.look
				u.look = func() (trial.Service, error) {
					v, err := look()
					if s.requests > 0 {
						v.State, v.Active, v.Queued = trial.Between, false, queued
					}
					return v, err
				}
				want := state.PendingHealth
				if queued {
					want = state.RolledBack
				}
				if res := attend(t, c, l, u, after(time.Minute)); res.State.Status != want || res.State.BootAttempts != 0 || !queued && !l.MayReplace(res.State) {
					t.Errorf("%+v, %v", res.State, l.MayReplace(res.State))
				}
			})
		})
	}
}

// A path unit that cannot be started does not keep a swap from being taken back.
func TestAnAttachedPathUnitThatCannotStart(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		s, began, ends := newService(l), time.Now(), 0
		s.deaf, s.pathDown = true, true
		for time.Since(began) < 10*time.Minute {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			if err := Attend(ctx, c.Config, c.Options, slowUnit{s.unit()}); errors.Is(err, errMend) {
				ends++
			} else if err != nil {
				t.Error(err)
			}
			cancel()
		}
		if res, err := l.Read(); err != nil || res.State.Status != state.RolledBack || ends != 1 {
			t.Errorf("it ended itself %d times: %+v, %v", ends, res.State, err)
		}
	})
}

// What systemd does not say is nothing against a version, and nothing for it.
func TestAnAttachedServiceThatSystemdDoesNotShow(t *testing.T) {
	t.Parallel()
	t.Run("its processes", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			if err := Attend(ctx, c.Config, c.Options, olderUnit{newService(l).unit()}); err != nil {
				t.Error(err)
			}
			if res, err := l.Read(); err != nil || res.State.Status != state.PendingHealth || res.State.Noted() || !l.MayReplace(res.State) {
				t.Errorf("%+v, %v", res.State, err)
			}
		})
	})
	t.Run("its state for a while", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		asked := 0
		c.Check = func(context.Context) error { asked++; return nil }
		synctest.Test(t, func(t *testing.T) {
			s := newService(l)
			u := s.unit()
			look := u.look
			u.look = func() (trial.Service, error) {
				if age := time.Since(s.begun); s.n == 2 && age > 3*time.Second && age < time.Minute {
					return trial.Service{}, errors.New("no answer")
				}
				return look()
			}
			// 3 s before, and 10 s of health_hold_secs after it
			if res := attend(t, c, l, u, decided); res.State.Status != state.Stable || asked < 14 {
				t.Errorf("kept after %d checks: %+v", asked, res.State)
			}
		})
	})
}

// An unproven version writes and logs little, for as long as it stays so; and so does an agent
// whose link current something moves all the time.
func TestAnAttachedAgentIsQuiet(t *testing.T) { // not in parallel: a child that it forks has the locks of other tests until it executes
	t.Run("unproven", func(t *testing.T) {
		c, l := attachedRoot(t)
		c.Health.Command = []string{"/bin/sh", "-c", "exit 75"}
		var lines lines
		c.Options.Log = logTo(&lines, slog.LevelInfo)
		synctest.Test(t, func(t *testing.T) {
			s, writes, judge := newService(l), 0, ""
			var last os.FileInfo
			wait := after(25 * time.Minute)
			attend(t, c, l, s.unit(), func(r state.Result) bool {
				if found, err := filepath.Glob(filepath.Join(l.Root(), "trial", "*", "judge.json")); err == nil && len(found) == 1 {
					judge = found[0]
				}
				if st, err := os.Stat(judge); err == nil {
					if last == nil || !os.SameFile(st, last) {
						writes++
					}
					last = st
				}
				return wait(r)
			})
			if n := strings.Count(lines.String(), "a round of checks"); writes > 45 || n > 3 {
				t.Errorf("judge.json was written %d times in 25 minutes; %d lines", writes, n)
			}
		})
	})
	t.Run("current is moved", func(t *testing.T) {
		c, l := attachedRoot(t)
		var lines lines
		c.Options.Log = logTo(&lines, slog.LevelDebug)
		synctest.Test(t, func(t *testing.T) {
			s := newService(l)
			rollBack(t, l, "")
			stop := make(chan bool)
			go func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
						os.Remove(l.Current())
						os.Symlink("versions/1.1.0", l.Current())
					}
				}
			}()
			attend(t, c, l, s.unit(), after(10*time.Minute))
			close(stop)
			if n := strings.Count(lines.String(), "agent started"); n > 30 {
				t.Errorf("it started %d times in ten minutes", n)
			}
		})
	})
}

// While the agent rests, systemd's watchdog hears from it.
func TestAnAgentThatRestsIsAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, last := time.Now(), time.Now()
		rest(t.Context(), longestPause, func(s string) error {
			if s != "WATCHDOG=1" || time.Since(last) > time.Second {
				t.Errorf("%s after %v", s, time.Since(last))
			}
			last = time.Now()
			return nil
		})
		if took := time.Since(began); took != longestPause || time.Since(last) > time.Second {
			t.Errorf("it rested for %v", took)
		}
	})
}
