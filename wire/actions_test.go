package wire_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/wire"
)

func TestNamesOfActions(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "set_gain", "a1_2", "upgrade", strings.Repeat("a", wire.MaxActionName)} {
		if err := wire.CheckActionName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "A", "1a", "_a", "set-gain", "a b", "é", "a\n", wire.ActionUpgrade, wire.ActionWithdraw, wire.ActionGetConfig, "upgrade_other", strings.Repeat("a", wire.MaxActionName+1)} {
		if err := wire.CheckActionName(name); err == nil {
			t.Errorf("%q is the name of an action", name)
		}
	}
}

// What a node announces is bounded, and what cannot be an action is left out, so that the
// session of a node with other rules goes on.
func TestAnnouncedActionsAreBounded(t *testing.T) {
	t.Parallel()
	names := []string{"set_gain", "set_gain", "Format", wire.ActionUpgrade, "a\x1b"}
	for i := range 2 * wire.MaxActions {
		names = append(names, fmt.Sprint("a", i))
	}
	b, err := wire.Encode(&wire.Auth{NodeID: "n", NodeSecret: "s", Actions: names}, at)
	if err != nil {
		t.Fatal(err)
	}
	env, err := wire.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	auth := env.Message.(*wire.Auth)
	if got := auth.ActionNames(); len(auth.Actions) != wire.MaxActions || !slices.Equal(got[:2], []string{"set_gain", "a0"}) || len(got) != wire.MaxActions-4 {
		t.Errorf("got %d of %d: %q", len(got), len(auth.Actions), got)
	}
}

func TestAResultIsBounded(t *testing.T) {
	t.Parallel()
	for n, ok := range map[int]bool{wire.MaxResult: true, wire.MaxResult + 1: false} {
		b, err := wire.Encode(&wire.CommandAck{CommandID: "a", Success: true, Result: json.RawMessage(`"` + strings.Repeat("a", n-2) + `"`)}, at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wire.Decode(b); (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	// null is no result, and no parameters.
	env, err := wire.Decode([]byte(`{"type":"command_ack","payload":{"command_id":"a","success":true,"result":null}}`))
	if err != nil || env.Message.(*wire.CommandAck).Result != nil {
		t.Errorf("got %+v, %v", env.Message, err)
	}
	if env, err = wire.Decode([]byte(`{"type":"command","payload":{"command_id":"a","action":{"type":"b","params":null}}}`)); err != nil || env.Message.(*wire.Command).Action.Params != nil {
		t.Errorf("got %+v, %v", env.Message, err)
	}
}
