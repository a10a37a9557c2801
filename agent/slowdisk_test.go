//go:build !sim

package agent

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/wire"
)

// slowDisk is a disk on which a call of fsync takes until release is called.
type slowDisk struct {
	mu      sync.Mutex
	on      bool
	waiting int
	free    chan struct{}
}

func (d *slowDisk) Change(op fsutil.Op, make func() error) error {
	d.mu.Lock()
	on := d.on && (op.Kind == fsutil.OpSync || op.Kind == fsutil.OpSyncDir)
	if on {
		d.waiting++
	}
	d.mu.Unlock()
	if on {
		<-d.free
	}
	return make()
}

func (d *slowDisk) slow(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.on = on; !on {
		close(d.free)
	}
}

func (d *slowDisk) waits() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting > 0
}

// While the disk is slow the session's loop answers the manager, sends health messages, and
// tells systemd that it runs.
func TestASessionOnASlowDisk(t *testing.T) {
	t.Parallel()
	disk := &slowDisk{free: make(chan struct{})}
	var a *Agent
	started := make(chan struct{})
	served := make(chan struct{})
	c := rootWith(t, manager(t, func(p peer) {
		<-started
		disk.slow(true)
		p.welcome()
		answers := func(while string) {
			p.t.Helper()
			p.send(&wire.Ping{})
			p.until("the pong "+while, func(m wire.Message) bool { _, ok := m.(*wire.Pong); return ok })
			before := a.loopDeadline.Load() // the loop set it: it sent the pong
			wake(a.healthDue)
			p.until("health "+while, func(m wire.Message) bool { _, ok := m.(*wire.Health); return ok })
			wait(p.t, "the loop reports "+while, func() bool {
				d := a.loopDeadline.Load()
				return d > before && d < math.MaxInt64
			})
		}
		answers("before a command")
		p.send(upgradeTo("slow", "0.1.0")) // refused, and recorded
		wait(p.t, "the disk", disk.waits)
		answers("while a command is recorded")
		p.send(&wire.EventAck{EventIDs: []string{"none"}})
		answers("while entries of the outbox are removed")
		disk.slow(false)
		if ack := p.ack("slow"); ack.Success || ack.ErrorCode == "" {
			p.t.Errorf("%+v", ack)
		}
		close(served)
		p.drain()
	}))
	if err := os.WriteFile(filepath.Join(c.Service.InstallRoot, "credentials.json"), []byte(`{"node_id":"n","node_secret":"s"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	a = runOn(t, c, disk)
	close(started)
	<-served
}

// A slow disk before and after a registration does not count as a hung session.
func TestRegistrationOnASlowDisk(t *testing.T) {
	t.Parallel()
	disk := &slowDisk{free: make(chan struct{})}
	registered := make(chan struct{})
	c := rootWith(t, manager(t, func(p peer) {
		p.welcome()
		close(registered)
		p.drain()
	}))
	c.Notify = func(state string) error {
		if state == "READY=1" {
			disk.slow(true)
		}
		return nil
	}
	a := runOn(t, c, disk)
	wait(t, "no deadline", func() bool { return a.loopDeadline.Load() == math.MaxInt64 })
	disk.slow(false)
	<-registered
	wait(t, "the session", func() bool { return a.loopDeadline.Load() < math.MaxInt64 })
}

// Jobs run one after another, in their order, and those that wait are lost at the end.
func TestJobs(t *testing.T) {
	t.Parallel()
	j := newJobs()
	var did, then []int // the first belongs to the jobs
	for i := range 4 {
		j.add(func() func() error {
			did = append(did, i)
			return func() error { then = append(then, i); return nil }
		})
	}
	for range 2 {
		if err := j.finish(<-j.done); err != nil {
			t.Fatal(err)
		}
	}
	j.wait()
	if !slices.Equal(did, []int{0, 1, 2}) || !slices.Equal(then, []int{0, 1}) {
		t.Errorf("%v, then %v", did, then)
	}
}
