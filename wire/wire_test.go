package wire_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/go-cmp/cmp"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// frames are messages as deployed managers and nodes write them.
var frames = []struct {
	name  string
	frame string
	want  wire.Message
}{
	{"register", `{"type":"auth","timestamp":"2026-01-02T03:04:05Z","payload":{"registration_token":"rt","software_version":"1.4.0","device_type":"edge","protocol_version":1}}`,
		&wire.Auth{RegistrationToken: "rt", SoftwareVersion: "1.4.0", DeviceType: "edge", ProtocolVersion: 1}},
	{"auth", `{"type":"auth","timestamp":"2026-01-02T03:04:05Z","payload":{"node_id":"n1","node_secret":"s","software_version":"1.4.0","device_type":"edge","protocol_version":1}}`,
		&wire.Auth{NodeID: "n1", NodeSecret: "s", SoftwareVersion: "1.4.0", DeviceType: "edge", ProtocolVersion: 1}},
	{"auth with features", `{"type":"auth","timestamp":"2026-01-02T03:04:05Z","payload":{"node_id":"n1","node_secret":"s","software_version":"1.4.0","device_type":"edge","protocol_version":1,"features":["upgrade_withdraw"]}}`,
		&wire.Auth{NodeID: "n1", NodeSecret: "s", SoftwareVersion: "1.4.0", DeviceType: "edge", ProtocolVersion: 1, Features: []string{wire.FeatureWithdraw}}},
	{"withdrawal", `{"type":"command","timestamp":"2026-01-02T03:04:05Z","payload":{"command_id":"w","action":{"type":"upgrade_withdraw","command_id":"u"}}}`,
		&wire.Command{CommandID: "w", Action: wire.Action{Type: wire.ActionWithdraw, CommandID: "u", Raw: []byte(`{"type":"upgrade_withdraw","command_id":"u"}`)}}},
	{"health that waits for a download", `{"type":"health","timestamp":"2026-01-02T03:04:05Z","payload":{"status":"ok","version":"1.5.0","uptime_secs":9,"capabilities":[],"hold":{"reason":"the release host","since":"2026-01-01T00:00:00Z","until":"2026-01-03T00:00:00Z"}}}`,
		&wire.Health{Status: "ok", Version: "1.5.0", UptimeSecs: 9, Capabilities: []string{},
			Hold: &wire.Hold{Reason: "the release host", Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)}}},
	{"probe", `{"type":"auth","timestamp":"2026-01-02T03:04:05Z","payload":{"node_id":"n1","node_secret":"s","software_version":"1.4.0","device_type":"edge","protocol_version":1,"probe":true}}`,
		&wire.Auth{NodeID: "n1", NodeSecret: "s", SoftwareVersion: "1.4.0", DeviceType: "edge", ProtocolVersion: 1, Probe: true}},
	{"auth_ok to a probe", `{"type":"auth_ok","timestamp":"2026-01-02T03:04:05Z","payload":{"features":["event_ack","probe"],"probe":true}}`,
		&wire.AuthOK{Features: []string{"event_ack", "probe"}, Probe: true}},
	{"register_ack", `{"type":"register_ack","timestamp":"2026-01-02T03:04:05Z","payload":{"node_id":"n1","node_secret":"s"}}`,
		&wire.RegisterAck{NodeID: "n1", NodeSecret: "s"}},
	{"auth_ok", `{"type":"auth_ok","timestamp":"2026-01-02T03:04:05Z","payload":{"features":["event_ack"]}}`,
		&wire.AuthOK{Features: []string{"event_ack"}}},
	{"auth_ok without payload", `{"type":"auth_ok","timestamp":"2026-01-02T03:04:05Z"}`, &wire.AuthOK{}},
	{"auth_error", `{"type":"auth_error","timestamp":"2026-01-02T03:04:05Z","message":"Invalid node secret"}`,
		&wire.AuthError{Message: "Invalid node secret"}},
	{"auth_error in the payload", `{"type":"auth_error","timestamp":"2026-01-02T03:04:05Z","payload":{"message":"no"}}`,
		&wire.AuthError{Message: "no"}},
	{"health", `{"type":"health","timestamp":"2026-01-02T03:04:05Z","payload":{"status":"ok","version":"1.4.0","uptime_secs":9,"capabilities":["upgrade"],"upgrade":{"status":"stable","current_version":"1.4.0","boot_attempts":0,"channels":["stable"],"new_field":1}}}`,
		&wire.Health{Status: "ok", Version: "1.4.0", UptimeSecs: 9, Capabilities: []string{"upgrade"},
			Upgrade: &wire.Upgrade{Status: "stable", CurrentVersion: "1.4.0", Channels: []string{"stable"}}}},
	{"health with warnings", `{"type":"health","timestamp":"2026-01-02T03:04:05Z","payload":{"status":"ok","version":"1.4.0","uptime_secs":9,"capabilities":[],"warnings":["unknown key","mode 0644"]}}`,
		&wire.Health{Status: "ok", Version: "1.4.0", UptimeSecs: 9, Capabilities: []string{}, Warnings: []string{"unknown key", "mode 0644"}}},
	{"health on trial", `{"type":"health","timestamp":"2026-01-02T03:04:05Z","payload":{"status":"ok","version":"1.5.0","uptime_secs":9,"capabilities":[],"trial":"unproven","hold":{"reason":"dns","since":"2026-01-01T00:00:00Z"}}}`,
		&wire.Health{Status: "ok", Version: "1.5.0", UptimeSecs: 9, Capabilities: []string{}, Trial: wire.TrialUnproven,
			Hold: &wire.Hold{Reason: "dns", Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}}},
	{"ack", `{"type":"command_ack","timestamp":"2026-01-02T03:04:05Z","payload":{"command_id":"u","success":true,"data":{"status":"staged","from_version":"1.4.0","to_version":"1.5.0","channel":"stable","variant":"default","arch":"x86_64-linux"}}}`,
		&wire.CommandAck{CommandID: "u", Success: true, Data: &wire.AckData{Status: "staged", FromVersion: "1.4.0", ToVersion: "1.5.0", Channel: "stable", Variant: "default", Arch: "x86_64-linux"}}},
	{"auth with actions", `{"type":"auth","timestamp":"2026-01-02T03:04:05Z","payload":{"node_id":"n1","node_secret":"s","software_version":"1.4.0","device_type":"edge","protocol_version":1,"actions":["reboot","set_gain"]}}`,
		&wire.Auth{NodeID: "n1", NodeSecret: "s", SoftwareVersion: "1.4.0", DeviceType: "edge", ProtocolVersion: 1, Actions: []string{"reboot", "set_gain"}}},
	{"command of the author's", `{"type":"command","timestamp":"2026-01-02T03:04:05Z","payload":{"command_id":"a","action":{"type":"set_gain","params":{"db":3}}}}`,
		&wire.Command{CommandID: "a", Action: wire.Action{Type: "set_gain", Params: []byte(`{"db":3}`), Raw: []byte(`{"type":"set_gain","params":{"db":3}}`)}}},
	{"ack with a result", `{"type":"command_ack","timestamp":"2026-01-02T03:04:05Z","payload":{"command_id":"a","success":true,"result":{"gain":[3,"dB"]}}}`,
		&wire.CommandAck{CommandID: "a", Success: true, Result: []byte(`{"gain":[3,"dB"]}`)}},
	{"failed ack", `{"type":"command_ack","timestamp":"2026-01-02T03:04:05Z","payload":{"command_id":"u","success":false,"error":"text","error_code":"upgrade_disabled"}}`,
		&wire.CommandAck{CommandID: "u", Error: "text", ErrorCode: release.Disabled}},
	{"event", `{"type":"event","timestamp":"2026-01-02T03:04:05Z","payload":{"event_id":"e1","severity":"info","category":"upgrade","message":"m","details":{"error_code":"upgrade_staged","from_version":"1.4.0","to_version":"1.5.0","command_id":"u","trial":{"contradictions":6,"link":"l","probe":"p","probe_before":"b","not_counted":["a reboot"]},"dependency":true}}}`,
		&wire.Event{EventID: "e1", Severity: release.Info, Category: "upgrade", Message: "m", Details: wire.Details{ErrorCode: release.Staged, FromVersion: "1.4.0", ToVersion: "1.5.0", CommandID: "u", Dependency: true,
			Trial: &wire.Trial{Contradictions: 6, Link: "l", Probe: "p", ProbeBefore: "b", NotCounted: []string{"a reboot"}}}}},
	{"event_ack", `{"type":"event_ack","timestamp":"2026-01-02T03:04:05Z","payload":{"event_ids":["a","b"]}}`, &wire.EventAck{EventIDs: []string{"a", "b"}}},
	{"ping", `{"type":"ping","timestamp":"2026-01-02T03:04:05Z","payload":null}`, &wire.Ping{}},
	{"pong with a payload", `{"type":"pong","timestamp":"2026-01-02T03:04:05Z","payload":[1]}`, &wire.Pong{}},
	{"unknown type", `{"type":"from_the_future","timestamp":7,"payload":[{}],"more":{}}`, &wire.Unknown{Type: "from_the_future"}},
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, c := range frames {
		e, err := wire.Decode([]byte(c.frame))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d := cmp.Diff(c.want, e.Message); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, d)
		}
		if _, unknown := c.want.(*wire.Unknown); !unknown && !e.Time.Equal(at) {
			t.Errorf("%s: time %v", c.name, e.Time)
		}
	}
}

func TestDecodeCommand(t *testing.T) {
	t.Parallel()
	e, err := wire.Decode([]byte(`{"type":"command","payload":{"command_id":"u","action":{"type":"upgrade_binary","version":"1.5.0","channel":"stable","target_arch":"x86_64-linux","variant":"full"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	a := e.Message.(*wire.Command).Action
	a.Raw = nil
	want := wire.Action{Type: "upgrade_binary", Version: "1.5.0", Channel: "stable", TargetArch: "x86_64-linux", Variant: "full"}
	if d := cmp.Diff(want, a); d != "" {
		t.Error(d)
	}
	// An operator declared the version the repair; without the field it is not.
	if b := encoded(t, wire.Action{Type: wire.ActionUpgrade, Version: "1.5.0", Repair: true}); b != `{"type":"upgrade_binary","version":"1.5.0","repair":true}` {
		t.Errorf("written as %s", b)
	}
	if b := encoded(t, wire.Action{Type: wire.ActionUpgrade, Version: "1.5.0"}); strings.Contains(b, "repair") {
		t.Errorf("written as %s", b)
	}
	e, err = wire.Decode([]byte(`{"type":"command","payload":{"command_id":"u","action":{"type":"upgrade_binary","version":"1.5.0","repair":true}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if a := e.Message.(*wire.Command).Action; !a.Repair || a.Version != "1.5.0" {
		t.Errorf("got %+v", a)
	}
	// Another action's fields may have any type; its handler gets them raw.
	e, err = wire.Decode([]byte(`{"type":"command","payload":{"command_id":"u","action":{"type":"reboot","version":7}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if a := e.Message.(*wire.Command).Action; a.Type != "reboot" || string(a.Raw) != `{"type":"reboot","version":7}` || a.Version != "" {
		t.Errorf("got %+v", a)
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A text that is too long for a version, channel, arch or variant is shortened, so that
// the node can answer the command. It stays invalid.
func TestDecodeShortensLongTextsOfAnAction(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("1.0.0", 100)
	e, err := wire.Decode([]byte(`{"type":"command","payload":{"command_id":"u","action":{"type":"upgrade_binary","version":"` + long + `","channel":"` + long + `","target_arch":"` + long + `","variant":"a\u0000b\n"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	a := e.Message.(*wire.Command).Action
	for _, s := range []string{a.Version, a.Channel, a.TargetArch, a.Variant} {
		if _, err := release.ParseVersion(s); err == nil || len(s) > 2*release.MaxNameLen || release.CheckName("it", s) == nil {
			t.Errorf("%q", s)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ frame, want string }{
		"not JSON":           {`hello`, "invalid character"},
		"no type":            {`{"payload":{}}`, "type is missing"},
		"wrong payload":      {`{"type":"health","payload":[]}`, "health"},
		"no command id":      {`{"type":"command","payload":{"action":{"type":"x"}}}`, "command_id is missing"},
		"no payload":         {`{"type":"command"}`, "command_id is missing"},
		"newline in id":      {`{"type":"command","payload":{"command_id":"a\nb","action":{"type":"x"}}}`, "control character"},
		"long id":            {`{"type":"command","payload":{"command_id":"` + strings.Repeat("a", 129) + `","action":{"type":"x"}}}`, "129 bytes"},
		"no action":          {`{"type":"command","payload":{"command_id":"a"}}`, "action type is missing"},
		"long event message": {`{"type":"event","payload":{"message":"` + strings.Repeat("a", wire.MaxText+1) + `"}}`, "message has"},
		"no secret":          {`{"type":"register_ack","payload":{"node_id":"n"}}`, "node_secret is missing"},
		"many event ids":     {`{"type":"event_ack","payload":{"event_ids":[` + strings.Repeat(`"a",`, wire.MaxEventIDs) + `"a"]}}`, "10001 event ids"},
		"many failed starts": {`{"type":"event","payload":{"details":{"failed_starts":[` + strings.Repeat(`"a",`, wire.MaxStarts) + `"a"]}}}`, "failed_starts has 65"},
		"long failed start":  {`{"type":"event","payload":{"details":{"failed_starts":["` + strings.Repeat("a", wire.MaxText+1) + `"]}}}`, "failed_starts has"},
		"long reason":        {`{"type":"health","payload":{"upgrade_unavailable":"` + strings.Repeat("a", wire.MaxText+1) + `"}}`, "upgrade_unavailable has"},
		"too large":          {`{"type":"` + strings.Repeat("a", wire.MaxMessage) + `"}`, "more than"},
	} {
		_, err := wire.Decode([]byte(c.frame))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, c.want)
		}
	}
}

// A frame always has all three keys, and decodes to the message that was encoded.
func TestEncode(t *testing.T) {
	t.Parallel()
	for _, c := range frames {
		b, err := wire.Encode(c.want, at)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(b, &keys); err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{"type", "timestamp", "payload"} {
			if _, ok := keys[k]; !ok {
				t.Errorf("%s: no %q in %s", c.name, k, b)
			}
		}
		e, err := wire.Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.want, e.Message); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	if _, err := wire.Encode(&wire.Event{Message: strings.Repeat("a", wire.MaxMessage)}, at); err == nil {
		t.Error("a message over the limit was encoded")
	}
}

// Without a probe, auth and its answer are those of deployed managers and nodes, to the
// byte.
func TestProbeIsOptional(t *testing.T) {
	t.Parallel()
	for _, m := range []wire.Message{&wire.Auth{NodeID: "n"}, &wire.AuthOK{Features: []string{wire.FeatureEventAck}}} {
		if b, err := wire.Encode(m, at); err != nil || strings.Contains(string(b), "probe") {
			t.Errorf("%s, %v", b, err)
		}
	}
}

// HasFeature finds a feature in each form of the header.
func TestHasFeature(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": false, "probe": true, "a, probe ,b": true, "a,probe": true, "probes": false, "a probe": false} {
		if got := wire.HasFeature(http.Header{wire.FeaturesHeader: {"x", value}}, wire.FeatureProbe); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
	if http.CanonicalHeaderKey(wire.FeaturesHeader) != wire.FeaturesHeader {
		t.Errorf("%s is not as net/http writes it", wire.FeaturesHeader)
	}
}

// FuzzDecode checks that every decoded message encodes, and decodes to the same
// message.
func FuzzDecode(f *testing.F) {
	for _, c := range frames {
		f.Add([]byte(c.frame))
	}
	f.Add([]byte(`{"type":"command","payload":{"command_id":"u","action":{"type":"upgrade_binary","version":"1.5.0"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := wire.Decode(b)
		if err != nil {
			return
		}
		if _, ok := e.Message.(*wire.Unknown); ok {
			return
		}
		out, err := wire.Encode(e.Message, at)
		if err != nil {
			t.Fatalf("decoded, but does not encode: %v", err)
		}
		again, err := wire.Decode(out)
		if err != nil {
			t.Fatalf("encoded to what does not decode: %v\n%s", err, out)
		}
		first, second := e.Message, again.Message
		for _, m := range []wire.Message{first, second} {
			if c, ok := m.(*wire.Command); ok {
				c.Action.Raw = nil // the fields of other actions are not kept
			}
		}
		if a, b := mustJSON(first), mustJSON(second); a != b {
			t.Fatalf("first %s\nthen  %s", a, b)
		}
	})
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
