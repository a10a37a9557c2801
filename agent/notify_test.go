package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// While systemd reads nothing, nobody waits for it. Afterwards it has READY=1 and the
// newest status, once each.
func TestSystemdIsToldWhatItMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		deaf := true
		var s settings
		s.Log = slog.New(slog.DiscardHandler)
		s.Notify = func(state string) error {
			mu.Lock()
			defer mu.Unlock()
			if deaf {
				return errors.New("nobody reads")
			}
			got = append(got, state)
			return nil
		}
		a := newAgent(s)
		ctx, cancel := context.WithCancel(t.Context())
		go a.notifyAgain(ctx)
		a.setStatus(func(w *statusText) { w.service = "starts" })
		a.notify("READY=1")
		a.notify("WATCHDOG=1")
		time.Sleep(time.Minute + notifyPause/2) // not at the same time as notifyAgain
		a.setStatus(func(w *statusText) { w.service = "runs" })
		mu.Lock()
		deaf = false
		mu.Unlock()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"STATUS=runs", "READY=1"}; !slices.Equal(got, want) {
			t.Errorf("systemd got %q, want %q", got, want)
		}
		cancel()
	})
}

// While Notify hangs nothing else waits for it, and afterwards systemd has the newest text.
func TestAnAgentIsNotHeldByNotify(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var mu sync.Mutex
		var got []string
		var s settings
		s.Log = slog.New(slog.DiscardHandler)
		s.Notify = func(state string) error {
			<-hang
			mu.Lock()
			defer mu.Unlock()
			got = append(got, state)
			return nil
		}
		a := newAgent(s)
		ctx, cancel := context.WithCancel(t.Context())
		go a.notifyAgain(ctx)
		go a.setStatus(func(w *statusText) { w.service = "starts" })
		synctest.Wait()
		began := time.Now()
		if a.Status(); time.Since(began) != 0 {
			t.Errorf("Status took %v", time.Since(began))
		}
		a.setStatus(func(w *statusText) { w.service = "runs" })
		time.Sleep(time.Minute)
		close(hang)
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"STATUS=starts", "STATUS=runs"}; !slices.Equal(got, want) {
			t.Errorf("systemd got %q, want %q", got, want)
		}
		cancel()
	})
}
