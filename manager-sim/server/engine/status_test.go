package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

func TestStateOf(t *testing.T) {
	t.Parallel()
	at := time.Now()
	queued := store.Command{Version: "1.1.0"}
	sent := queued
	sent.SentAt = at
	staged := sent
	staged.AckedAt, staged.Success = at, true
	failed := sent
	failed.AckedAt, failed.ErrorCode = at, "upgrade_disk_full"
	queued.CreatedAt = at
	old := func(c store.Command, age time.Duration) store.Command {
		c.CreatedAt = at.Add(-age)
		if !c.SentAt.IsZero() {
			c.SentAt = at.Add(-age)
		}
		return c
	}
	for _, tt := range []struct {
		c       store.Command
		codes   string
		version string
		want    string
	}{
		{queued, "", "1.0.0", "queued "},
		{sent, "", "1.0.0", "sent "},
		{sent, "upgrade_started", "1.0.0", "staging "},
		{staged, "upgrade_started upgrade_downloaded upgrade_staged", "1.0.0", "staged "},
		{staged, "", "1.0.0", "staged "}, // the events are lost
		{staged, "upgrade_started upgrade_staged", "1.1.0", "proving "},
		{sent, "upgrade_started upgrade_staged", "1.1.0", "proving "}, // the ack is lost
		{staged, "upgrade_staged upgrade_completed", "1.1.0", "updated "},
		{staged, "", "1.1.0", "updated "},
		{staged, "upgrade_staged upgrade_rolled_back", "1.0.0", "rolled_back upgrade_rolled_back"},
		{failed, "", "1.0.0", "failed upgrade_disk_full"},
		{sent, "upgrade_started upgrade_network_error", "1.0.0", "failed upgrade_network_error"},
		// Nothing waits for ever; and what comes after the time limit still counts.
		{old(queued, 23*time.Hour), "", "1.0.0", "queued "},
		{old(queued, 24*time.Hour), "", "1.0.0", "failed time_limit"},
		{old(sent, 59*time.Minute), "", "1.0.0", "sent "},
		{old(sent, time.Hour), "", "1.0.0", "failed time_limit"},
		{old(sent, time.Hour), "upgrade_started", "1.0.0", "failed time_limit"},
		{old(staged, time.Hour), "upgrade_staged", "1.0.0", "failed time_limit"},
		{old(staged, time.Hour), "upgrade_staged", "1.1.0", "failed time_limit"},
		{old(staged, 9*time.Hour), "upgrade_staged upgrade_completed", "1.1.0", "updated "},
		{old(staged, 9*time.Hour), "upgrade_staged upgrade_rolled_back", "1.0.0", "rolled_back upgrade_rolled_back"},
		{old(failed, 9*time.Hour), "", "1.0.0", "failed upgrade_disk_full"},
	} {
		s, code := engine.StateOf(tt.c, strings.Fields(tt.codes), store.Node{Version: tt.version, HealthAt: at}, at.Sub)
		if got := fmt.Sprintf("%s %s", s, code); got != tt.want {
			t.Errorf("%q at %s: %q, want %q", tt.codes, tt.version, got, tt.want)
		}
	}
}

// What the node reports about the trial of its version decides where events are missing,
// and whether the time limit runs. Of another version it says nothing.
func TestStateOfATrial(t *testing.T) {
	t.Parallel()
	at := time.Now()
	sent := store.Command{Version: "1.1.0", CreatedAt: at.Add(-2 * time.Hour), SentAt: at.Add(-2 * time.Hour)}
	acked := sent
	acked.AckedAt, acked.Success = at, true
	for _, tt := range []struct {
		c              store.Command
		codes          string
		version, trial string
		ran            time.Duration // of the two hours
		want           string
	}{
		{acked, "upgrade_staged", "1.1.0", "unproven", 2 * time.Hour, "proving "},
		{acked, "upgrade_staged", "1.1.0", "guard", 2 * time.Hour, "proving "},
		{acked, "upgrade_staged", "1.1.0", "trial", 2 * time.Hour, "failed time_limit"},
		{acked, "upgrade_staged", "1.1.0", "trial", 59 * time.Minute, "proving "},
		{acked, "upgrade_staged", "1.0.0", "unproven", 2 * time.Hour, "failed time_limit"},
		{acked, "", "1.1.0", "unproven", 2 * time.Hour, "proving "}, // the events are lost
		{acked, "", "1.1.0", "guard", 2 * time.Hour, "updated "},
		{sent, "", "1.1.0", "trial", time.Minute, "proving "}, // the ack, too
		{sent, "", "1.1.0", "", time.Minute, "updated "},
		{sent, "", "1.0.0", "trial", time.Minute, "sent "},
		{acked, "upgrade_staged upgrade_completed", "1.1.0", "guard", 2 * time.Hour, "updated "},
		{acked, "upgrade_staged upgrade_completed upgrade_rolled_back", "1.0.0", "", 2 * time.Hour, "rolled_back upgrade_rolled_back"},
		{acked, "upgrade_staged upgrade_superseded", "1.2.0", "trial", 2 * time.Hour, "superseded "},
		{acked, "upgrade_staged upgrade_superseded upgrade_rolled_back", "1.0.0", "", 2 * time.Hour, "rolled_back upgrade_rolled_back"},
	} {
		age := func(since time.Time) time.Duration { return tt.ran }
		s, code := engine.StateOf(tt.c, strings.Fields(tt.codes), store.Node{Version: tt.version, Trial: tt.trial, HealthAt: at}, age)
		if got := fmt.Sprintf("%s %s", s, code); got != tt.want {
			t.Errorf("%q at %s, %s: %q, want %q", tt.codes, tt.version, tt.trial, got, tt.want)
		}
	}
}

// Until a version has sent a health beat, nobody knows whether it is on trial: it counts as
// updated only if the node says so, or once the beat of an earlier agent says nothing of a
// trial.
func TestStateBeforeTheFirstHealthBeat(t *testing.T) {
	t.Parallel()
	at := time.Now()
	sent := store.Command{Version: "1.1.0", CreatedAt: at, SentAt: at}
	acked := sent
	acked.AckedAt, acked.Success = at, true
	for _, tt := range []struct {
		c             store.Command
		codes         string
		before, after string // the first health beat
	}{
		{acked, "", "proving ", "updated "}, // the event upgrade_staged arrives later, or is lost
		{acked, "upgrade_staged_manual", "proving ", "updated "},
		{sent, "upgrade_staged_manual", "proving ", "updated "},
		{sent, "", "sent ", "updated "}, // the ack, too
		{sent, "upgrade_started", "staging ", "staging "},
		{acked, "upgrade_staged", "proving ", "proving "},
		{acked, "upgrade_completed", "updated ", "updated "},
	} {
		n := store.Node{Version: "1.1.0"}
		for _, want := range []string{tt.before, tt.after} {
			s, code := engine.StateOf(tt.c, strings.Fields(tt.codes), n, at.Sub)
			if got := fmt.Sprintf("%s %s", s, code); got != want {
				t.Errorf("%q, health at %v: %q, want %q", tt.codes, n.HealthAt, got, want)
			}
			n.HealthAt = at
		}
	}
}
