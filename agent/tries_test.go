//go:build !sim

package agent

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// A manager that answers nothing in its session is left, so that the next one has its turn,
// and each try is an attempt of its own.
func TestASilentSessionIsEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, urls := newTries(), []string{"wss://silent", "wss://sound"}
		ctx, cancel := context.WithCancel(t.Context())
		attempts := [2]int{}
		go func() { // as connect does
			for i := 0; ctx.Err() == nil; i++ {
				began := time.Now()
				attempts[i%2]++
				session, hangUp := context.WithCancelCause(ctx)
				tr.authenticated(hangUp)
				if i%2 == 1 {
					time.Sleep(heldFor)
					tr.heard()
				}
				<-session.Done()
				tr.ended(urls[i%2], began, context.Cause(session))
				if !tr.due(urls) {
					select {
					case <-ctx.Done():
					case <-tr.wake:
					case <-time.After(30 * time.Second):
					}
				}
			}
		}()
		time.Sleep(time.Second)
		held, why := tr.try(ctx, urls)
		if !held || why != nil || attempts != [2]int{1, 1} {
			t.Errorf("held %t, %v, attempts %v", held, why, attempts)
		}
		cancel()
		synctest.Wait()
	})
}

// Each try of a trial begins an attempt at every URL; after it the pauses are as before.
func TestATryIsAnAttemptAtEachURL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, urls := newTries(), []string{"wss://a", "wss://b"}
		ctx, cancel := context.WithCancel(t.Context())
		var attempts atomic.Int32
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				attempts.Add(1)
				tr.ended(urls[i%2], time.Now(), errors.New("refused"))
				if tr.due(urls) {
					continue
				}
				select {
				case <-ctx.Done():
				case <-tr.wake:
				case <-time.After(time.Hour):
				}
			}
		}()
		synctest.Wait()
		for range 3 {
			time.Sleep(time.Minute)
			before := attempts.Load()
			held, why := tr.try(ctx, urls)
			if n := attempts.Load() - before; held || n < 2 || n > 3 || !strings.Contains(why.Error(), "wss://b: refused") {
				t.Errorf("held %t, %v, %d attempts", held, why, n)
			}
			if len(tr.wake) > 0 || tr.due(urls) {
				t.Error("the pauses are not back")
			}
		}
		tr.heard()
		if held, _ := tr.try(ctx, urls); !held || len(tr.wake) > 0 || tr.due(urls) {
			t.Errorf("held %t, and it asks", held)
		}
		cancel()
		synctest.Wait()
	})
}

// What a manager sent before it closed the session proves nothing, however late it is read.
func TestAClosedSessionProvesNothing(t *testing.T) {
	t.Parallel()
	url := manager(t, func(p peer) {
		p.welcome()
		for range 3 {
			p.send(&wire.Ping{})
		}
		p.WriteControl(websocket.PongMessage, []byte("an answer to nothing"), time.Now().Add(time.Second))
		p.WriteControl(websocket.PingMessage, []byte(heldPing), time.Now().Add(time.Second))
	})
	a := runAgent(t, rootWith(t, url))
	var sessions int
	wait(t, "some sessions", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.authenticated {
			sessions++
		}
		return sessions > 2 || strings.Contains(a.status.manager, "not connected")
	})
	if a.tries.proven() {
		t.Error("the link is proven")
	}
}

// Keys are remembered for as long as a round may take, and no longer.
func TestKeysAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTries()
		for i := range 100 {
			tr.opened(strings.Repeat("k", i+1))
			time.Sleep(2 * time.Minute)
		}
		if n := len(tr.keysSince(time.Time{})); n > 32 {
			t.Errorf("%d keys", n)
		}
		tr.opened("")
		if keys := tr.keysSince(time.Now().Add(-3 * time.Minute)); len(keys) != 1 {
			t.Errorf("%q", keys)
		}
	})
}
