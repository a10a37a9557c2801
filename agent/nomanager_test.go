package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Without a session to prove that the agent works, systemd's watchdog is answered all the
// same, and the status says why there is no connection.
func TestANodeWithoutAManagerAnswersTheWatchdog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := newTrial(t, dir)
		o.c.URLs = nil
		o.startedAt = time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- o.connect(ctx) }()
		for range 600 {
			time.Sleep(time.Second)
			synctest.Wait()
			if late := time.Since(o.startedAt) - time.Duration(o.loopDeadline.Load()); late > 0 {
				t.Fatalf("the loop is %v late after %v", late, time.Since(o.startedAt))
			}
		}
		cancel()
		if err := <-ended; err != nil || !o.said("STATUS="+NoManager) {
			t.Errorf("%v, systemd got %q", err, o.notified)
		}
	})
}
