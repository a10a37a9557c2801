package server_test

import (
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// The manager's clock was an hour ahead when a node completed, and was corrected: the node
// falls, and that pauses the rollout.
func TestANodeFallsAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	for code, fall := range map[string]func(p *pair){
		rollout.Degraded: func(p *pair) {
			p.first.send(&wire.Health{Status: "degraded", Version: "1.1.0", Capabilities: []string{wire.CapabilityUpgrade}})
			p.first.synced("degraded")
		},
		rollout.OtherVersion: func(p *pair) {
			p.first.conn.Close()
			p.first = p.again(p.firstReg, "1.0.0")
		},
		rollout.Vanished: func(p *pair) {
			if err := p.Store.RecordConnect(t.Context(), p.firstReg.NodeID, "1.1.0", "127.0.0.1", time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
			p.first.conn.Close()
		},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			c := server.Config{}
			if code == rollout.Vanished {
				c.VanishAfter = time.Millisecond
			}
			p := startPair(t, c, `{"version":"1.1.0","settle_secs":3600}`, nil)
			p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
			p.first.conn.Close()
			p.first = p.again(p.firstReg, "1.1.0")
			p.first.trial("1.1.0", wire.TrialOpen, "")
			completed := api.Event{EventID: "c", NodeID: p.firstReg.NodeID, Time: time.Now(), ReceivedAt: time.Now().Add(time.Hour), Severity: "info", Category: "upgrade",
				ErrorCode: string(release.Completed), CommandID: p.command, Details: []byte("{}")}
			if _, err := p.Store.AddEvent(t.Context(), &completed); err != nil {
				t.Fatal(err)
			}
			p.first.synced("completed")
			p.until("it is updated", func() bool { return p.of().State == rollout.NodeUpdated })
			fall(p)
			p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
			if n := p.of(); n.Code != code {
				t.Errorf("%+v", n)
			}
		})
	}
}

// A clock is some seconds fast when the manager starts after an outage, and is corrected:
// the limit of a node still does not run in the outage.
func TestAnOutageAndAClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	p := startPair(t, server.Config{}, `{"version":"1.1.0","limit_secs":3600}`, nil)
	p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
	p.Close()
	p.http.Close()
	p.age(150 * time.Minute)
	for _, err := range []error{
		p.Store.RecordSent(t.Context(), p.command, time.Now().Add(-150*time.Minute)),
		p.Store.RecordAlive(t.Context(), time.Now().Add(-149*time.Minute), 24*365*time.Hour),
		p.Store.RecordAlive(t.Context(), time.Now().Add(10*time.Second), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p.run(server.Config{})
	p.first = p.again(p.firstReg, "1.1.0")
	p.first.trial("1.1.0", wire.TrialOpen, "")
	p.first.reports(p.command, release.Completed, "1.0.0", "1.1.0", "healthy")
	p.until("it is updated", func() bool { return p.of().State != rollout.NodeCommanded })
	if r := p.rollout(); r.Status != rollout.Settling {
		t.Errorf("%s %q, %+v", r.Status, r.Reason, p.of())
	}
}
