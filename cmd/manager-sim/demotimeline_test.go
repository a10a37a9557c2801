package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/api"
)

func TestDowntimeHasEachPart(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 27, 6, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	node := func(ms int, kind string) rig.Entry {
		return rig.Entry{Record: api.Record{Type: kind}, At: at(ms), From: rig.FromNode}
	}
	entries := []rig.Entry{
		{Record: api.Record{Type: "started"}, At: at(1), From: rig.FromManager}, // not the supervisor's
		node(2, "status"), node(100, "exited"), node(150, "pre_started"), node(170, "started"),
		node(300, "exited"), node(350, "pre_started"), node(360, "started"),
	}
	log := []logLine{
		{at(-9000), "restarting into the new version", 0, 0}, {at(-8000), "agent started", 0, 0}, {at(-7000), "authenticated to the manager", 1, 1},
		{at(90), "restarting into the new version", 0, 0}, {at(200), "agent started", 0, 0}, {at(280), "authenticated to the manager", 12, 3},
		{at(390), "agent started", 0, 0}, {at(395), "authenticated to the manager", 1, 1},
	}
	parts, down, err := downtime(entries, log)
	var got []time.Duration
	for _, p := range parts {
		got = append(got, p.took/time.Millisecond)
	}
	if want := []time.Duration{10, 50, 20, 30, 65, 12, 3}; err != nil || !slices.Equal(got, want) || down != 180*time.Millisecond {
		t.Fatalf("%v, down for %v, %v; want %v", got, down, err, want)
	}
	var out strings.Builder
	printDowntime(&out, parts, down)
	var names []string
	for line := range strings.Lines(out.String()) {
		names = append(names, strings.Fields(line)[0])
	}
	if want := []string{"stop", "RestartSec", "ExecStartPre", "exec", "start", "TLS", "authentication", "down"}; !slices.Equal(names, want) {
		t.Errorf("the table has %q", names)
	}
	out.Reset()
	if err := writeDowntime(&out, "1.1.0", parts, down); err != nil {
		t.Fatal(err)
	}
	if lines := validJSONLines(t, out.String()); len(lines) != 1 || lines[0]["down_ms"] != 180.0 || lines[0]["version"] != "1.1.0" ||
		!strings.HasPrefix(out.String(), `{"version":"1.1.0","parts":[{"name":"stop","what":"the old process ends after its decision","ms":10},`) {
		t.Errorf("as JSON: %s", out.String())
	}
	for n := range entries[:5] {
		if _, _, err := downtime(entries[:n], log); err == nil {
			t.Errorf("%d entries are enough", n)
		}
	}
	if _, _, err := downtime(entries, log[:5]); err == nil {
		t.Error("it needs no authentication")
	}
}

func TestDemoJSONNeedsTheTimeline(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if code := cli.Run(t.Context(), newRootCmd(), []string{"demo", "--json"}, &out, &out); code != 2 || !strings.Contains(out.String(), "--json without --timeline") {
		t.Errorf("%d %s", code, out.String())
	}
}
