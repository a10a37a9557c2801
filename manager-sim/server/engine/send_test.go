package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A rollout pauses when the right of its person ends, also if what it gave was sent already and
// the node has not begun it. What a node has begun goes on.
func TestALostRightHoldsWhatWasSent(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{false, true} {
		for withdraws, want := range map[bool]store.CommandState{true: store.CommandWithdrawn, false: store.CommandHeld} {
			s := startSite(t, withdraws)
			s.must(s.st.RecordSent(t.Context(), s.command().ID, time.Now()))
			if begun {
				s.event("upgrade_started")
				want = store.CommandSent
			}
			s.rights(scoped{})
			n, err := s.st.Node(t.Context(), "a")
			s.must(err)
			if may, err := s.e.Commands.MaySend(t.Context(), s.command(), n); err != nil || may != begun {
				t.Errorf("begun %t: it may be sent again: %t, %v", begun, may, err)
			}
			s.must(s.e.Step(t.Context()))
			if c, r := s.command(), s.state(); c.State != want || (r.Status == rollout.Paused) == begun {
				t.Errorf("begun %t, withdraws %t: the command is %s, the rollout %s", begun, withdraws, c.State, r.Status)
			}
		}
	}
}

// A command to one node is withdrawn, over the wire, too, when its requester has lost the right,
// or when the node moves to a group for which the requester has none: whether it was sent or
// not. What the node has begun goes on.
func TestALostRightWithdrawsACommandToOneNode(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"right", "move"} {
		for _, progress := range []string{"never sent", "sent", "begun"} {
			for _, online := range []bool{true, false} {
				s := startSite(t, true)
				s.act(rollout.Abort{})
				s.must(s.st.AddCommand(t.Context(), store.Command{ID: "own", NodeID: "a", Version: "1.3.0", Action: []byte("{}"), CreatedAt: time.Now(), Actor: "ann", Acting: "ann"}, entryOf("x")))
				if progress != "never sent" {
					s.must(s.st.RecordSent(t.Context(), "own", time.Now()))
				}
				if progress == "begun" {
					s.eventOf("own", "upgrade_started")
				}
				s.fleet.online["a"] = online
				s.fleet.sent = nil
				s.rights(scoped{"ann/g": how == "move"})
				reason := store.ReasonRights
				if how == "move" {
					reason = store.ReasonMoved
					s.must(s.e.Commands.Move(t.Context(), "a", "h", "bob", entryOf("move")))
				}
				s.must(s.e.Step(t.Context()))
				n, err := s.st.Node(t.Context(), "a")
				s.must(err)
				if c := s.newest("a"); c.State.Open() {
					if may, err := s.e.Commands.MaySend(t.Context(), c, n); err != nil || may != (progress == "begun") {
						t.Errorf("%s, %s, online %t: it may be sent: %t, %v", how, progress, online, may, err)
					}
				}
				c := s.newest("a")
				if open := c.State.Open(); open != (progress == "begun") || !open && c.Reason != reason {
					t.Errorf("%s, %s, online %t: it is %s (%s)", how, progress, online, c.State, c.Reason)
				}
				if told := len(s.fleet.sent) > 0 && s.fleet.sent[0].State == store.CommandWithdrawn; progress == "sent" && told != online {
					t.Errorf("%s, online %t: sent over the wire: %+v", how, online, s.fleet.sent)
				}
			}
		}
	}
}

// scoped are rights: a person's key and a group, with a slash.
type scoped map[string]bool

func (r scoped) May(_ context.Context, key string, _ api.Role, groupID string) (bool, error) {
	return r[key+"/"+groupID], nil
}

// rights makes the engine ask r.
func (s *site) rights(r scoped) {
	c := s.e.Config
	c.Rights = r
	s.e = engine.New(c)
}

// eventOf adds an event of node "a" for a command.
func (s *site) eventOf(command, code string) {
	s.t.Helper()
	ev := api.Event{EventID: command + code, NodeID: "a", CommandID: command, Time: time.Now(), ReceivedAt: time.Now(), Severity: "info", Category: "upgrade", ErrorCode: code, Details: []byte("{}")}
	_, err := s.st.AddEvent(s.t.Context(), &ev)
	s.must(err)
}
