package rollout

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWaves(t *testing.T) {
	t.Parallel()
	for n, want := range map[int][]int{1: {1}, 2: {1, 2}, 3: {1, 2, 3}, 5: {1, 3, 5}, 10: {1, 5, 10}, 11: {2, 6, 11}, 50: {5, 25, 50}, 1000: {100, 500, 1000}} {
		if got := Waves(n, Staged); !slices.Equal(got, want) {
			t.Errorf("%d nodes: %v, want %v", n, got, want)
		}
		if got := Waves(n, Immediate); !slices.Equal(got, []int{n}) {
			t.Errorf("%d nodes at once: %v", n, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := Plan{ID: "r", Version: "1.1.0"}
	for want, change := range map[string]func(*Plan) []string{
		"needs an id":          func(p *Plan) []string { p.ID = ""; return []string{"a"} },
		"strategy":             func(p *Plan) []string { p.Strategy = "fast"; return []string{"a"} },
		"must not be negative": func(p *Plan) []string { p.Settle = -1; return []string{"a"} },
		"no node":              func(*Plan) []string { return nil },
		"is listed twice":      func(*Plan) []string { return []string{"a", "b", "a"} },
	} {
		p := good
		nodes := change(&p)
		if _, _, err := New(p, nodes, nil, epoch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The order of the nodes differs between rollouts, and is the same each time.
func TestOrderIsFrozen(t *testing.T) {
	t.Parallel()
	var nodes []string
	for i := range 50 {
		nodes = append(nodes, fmt.Sprint("node", i))
	}
	order := func(id string, nodes []string) string {
		r, _, err := New(Plan{ID: id, Version: "1.1.0"}, nodes, nil, epoch)
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, n := range r.Nodes {
			s = append(s, n.ID)
		}
		return strings.Join(s, " ")
	}
	back := slices.Clone(nodes)
	slices.Reverse(back)
	if order("r", nodes) != order("r", back) {
		t.Error("it depends on the order of the names")
	}
	if order("r", nodes) == order("s", nodes) {
		t.Error("it is the same in every rollout")
	}
}
