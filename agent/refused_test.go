//go:build !sim

package agent

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// If a manager answers "try later", the manager is at fault, and the trial is extended.
// If it refuses the credentials, the version on trial is at fault. A "try later" that
// follows such a refusal extends nothing.
func TestRefusalsInATrial(t *testing.T) {
	t.Parallel()
	later := wire.TryLater("too many failed authentications", time.Second)
	for name, tt := range map[string]struct {
		attempts []string // how each attempt is answered: auth_error, close code, or both; the last one again and again
		kept     bool
	}{
		"wrong secret":                         {[]string{"wrong 1000"}, false},
		"wrong secret, then slowed down":       {[]string{"wrong 1000", "4029"}, false},
		"slowed down by others, then accepted": {[]string{"4029", "4029", "ok"}, true},
		"not known, then accepted":             {[]string{"unknown 4029", "unknown 4029", "ok"}, true},
		"busy, then accepted":                  {[]string{"1013", "1013", "ok"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var attempts atomic.Int64
			url := manager(t, func(p peer) {
				how := tt.attempts[min(int(attempts.Add(1)), len(tt.attempts))-1]
				if how == "ok" {
					p.welcome()
					p.drain()
					return
				}
				text, code, both := strings.Cut(how, " ")
				if both {
					p.send(&wire.AuthError{Message: text})
				} else {
					code = text
				}
				c := map[string]int{"1000": websocket.CloseNormalClosure, "1013": websocket.CloseTryAgainLater, "4029": wire.CloseTryLater}[code]
				p.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(c, later), time.Now().Add(time.Second))
				p.drain()
			})
			o := newTrial(t, t.TempDir())
			r, err := rootWith(t, url).resolve()
			if err != nil {
				t.Fatal(err)
			}
			o.c.Config, o.c.URLs = r.Config, r.URLs
			if err := saveCredentials(t.Context(), o.c.Layout, credentials{"n", "s"}); err != nil {
				t.Fatal(err)
			}
			o.c.Window, o.c.Hold = 700*time.Millisecond, 100*time.Millisecond // over before the second attempt
			if !tt.kept {
				o.c.Window = 1500 * time.Millisecond // over after it
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			var wg sync.WaitGroup
			wg.Go(func() { o.connect(ctx) })
			err = o.runTrial(ctx, o.res, o.startedAt)
			if ctx.Err() != nil || (err == nil) != tt.kept {
				t.Errorf("after %d attempts: %v, kept should be %t", attempts.Load(), err, tt.kept)
			}
			cancel()
			wg.Wait()
		})
	}
}
