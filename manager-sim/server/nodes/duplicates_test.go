package nodes

import (
	"testing"
	"time"
)

// Health beats of two processes contradict each other. Beats of one process do not, even
// if some of them arrive late.
func TestUptimesOfTwoProcesses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var d duplicates
	session := func(serial uint64, address string) *session {
		return &session{nodeID: "n", serial: serial, address: address}
	}
	// One process that reconnects, with a beat that is 50 s late.
	for i, late := range []time.Duration{0, 50 * time.Second, 0, 50 * time.Second} {
		at := now.Add(time.Duration(i) * time.Minute)
		if _, proved := d.uptime(session(uint64(i+1), "a"), int64((at.Sub(now)+time.Hour-late)/time.Second), at); proved {
			t.Fatalf("one process, session %d", i+1)
		}
	}
	d.forget("n")
	// Two processes take turns: one is an hour older.
	proved, other := false, ""
	for i := range 4 {
		at, uptime, address := now.Add(time.Duration(i)*time.Minute), time.Hour, "old"
		if i%2 == 0 {
			uptime, address = 0, "new"
		}
		other, proved = d.uptime(session(uint64(i+10), address), int64((at.Sub(now)+uptime)/time.Second)+1, at)
		if proved != (i == 3) {
			t.Errorf("session %d proves two devices: %v", i, proved)
		}
	}
	if other != "new" {
		t.Errorf("the other device is at %q", other)
	}
	if d.forget("n"); len(d.by) != 0 {
		t.Errorf("remembered: %v", d.by)
	}
}

// Four sessions that replaced live ones prove two devices, unless their beats show one
// process.
func TestReplacedSessions(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, one := range []bool{true, false} {
		var d duplicates
		old, proved := &session{nodeID: "n", serial: 1, address: "a"}, false
		for i := range maxReplaced {
			at := now.Add(time.Duration(i) * time.Second)
			s := &session{nodeID: "n", serial: uint64(i + 2), address: "b"}
			d.replacedAlive(s, old)
			uptime := int64(0) // not known: it proves nothing
			if one {
				uptime = 3600 + int64(i)
			}
			_, proved = d.uptime(s, uptime, at)
			old = s
		}
		if proved == one {
			t.Errorf("one process %v: proved %v", one, proved)
		}
	}
	var d duplicates
	if d.answered("n", now) || !d.answered("n", now.Add(time.Minute)) || d.answered("m", now) {
		t.Error("two answers of replaced sessions prove two devices, and one does not")
	}
}
