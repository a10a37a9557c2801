package footprint

import (
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
)

// Only what cannot be written and was never written is given back: neither the
// relocations of a position-independent program, nor another file, nor data.
func TestUnmodified(t *testing.T) {
	t.Parallel()
	const smaps = `00400000-00d00000 r-xp 00000000 fe:00 1 /opt/edge/versions/1.0.0/edge-agent
Rss:                9000 kB
Anonymous:             0 kB
00d00000-01700000 r--p 00900000 fe:00 1 /opt/edge/versions/1.0.0/edge-agent
Anonymous:             0 kB
01700000-01800000 r--p 01300000 fe:00 1 /opt/edge/versions/1.0.0/edge-agent
Anonymous:             8 kB
01800000-01900000 rw-p 01400000 fe:00 1 /opt/edge/versions/1.0.0/edge-agent
Anonymous:             0 kB
02000000-02100000 r-xp 00000000 fe:00 2 /other/opt/edge/versions/1.0.0/edge-agent
Anonymous:             0 kB
03000000-03100000 r--p 00000000 fe:00 1 /opt/edge/versions/1.0.0/edge-agent
Rss:                   4 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:          4096 kB
`
	want := []mapping{{0x400000, 0xd00000}, {0xd00000, 0x1700000}}
	if got := unmodified(smaps, "/opt/edge/versions/1.0.0/edge-agent"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// Each run of the collector calls the function again.
func TestAfterCollections(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	afterCollections(func() { calls.Add(1) })
	for calls.Load() < 3 {
		runtime.GC()
	}
}

// Less of the program is resident afterwards, and the program goes on.
func TestUnmap(t *testing.T) {
	before := mapped()
	unmap()
	if after := mapped(); before == 0 || after >= before {
		t.Errorf("%d bytes of files are resident; before, %d", after, before)
	}
}
