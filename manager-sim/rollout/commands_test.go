package rollout

import (
	"fmt"
	"slices"
	"testing"
)

// As many nodes of the first wave as possible are online, and in each wave the online ones
// come first. Otherwise the order is that of the hash.
func TestOnlineNodesComeFirst(t *testing.T) {
	t.Parallel()
	var ids []string
	online := map[string]bool{}
	for i := range 20 {
		ids = append(ids, fmt.Sprint("n", i))
		online[ids[i]] = i%3 == 0
	}
	r, _, err := New(Plan{ID: "r", Version: "1.1.0"}, ids, online, epoch)
	if err != nil {
		t.Fatal(err)
	}
	begin := 0
	for i, end := range r.Waves {
		wave := r.Nodes[begin:end]
		if i == 0 && slices.ContainsFunc(wave, func(n Node) bool { return !n.Online }) {
			t.Errorf("an offline node is in the first wave: %+v", wave)
		}
		if !slices.IsSortedFunc(wave, func(a, b Node) int {
			if a.Online == b.Online {
				return 0
			}
			if a.Online {
				return -1
			}
			return 1
		}) {
			t.Errorf("wave %d: an offline node comes before an online one", i+1)
		}
		begin = end
	}
}

// A node that runs the version when its turn comes is updated, and gets no command.
func TestANodeThatRunsTheVersion(t *testing.T) {
	t.Parallel()
	r, _, err := New(Plan{ID: "r", Version: "1.1.0", Strategy: Immediate}, []string{"a", "b"}, map[string]bool{"a": true}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	r.Nodes[r.index("b")].Runs = true
	next, acts, err := Step(r, Presence{"b", true}, epoch)
	if n := next.Nodes[next.index("b")]; err != nil || len(acts) != 0 || n.State != NodeUpdated || n.Attempt != 0 {
		t.Errorf("%+v, %v, %v", n, acts, err)
	}
}
