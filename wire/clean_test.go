package wire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// hostile has everything that no terminal, log or page may get from a node: a clipboard
// sequence, a forged line, a change of the writing direction, C1.
const hostile = "a\x1b]52;c;cm0gLXJm\x07b\r\nnode forged\u202egnp.exe\u009b2J\x00\u2028end"

// fill sets every text of v to s, and every list to n entries. Times stay zero.
func fill(v reflect.Value, s string, n int) {
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		return
	case reflect.TypeFor[json.RawMessage](): // the author's, and the only one that is not cleaned
		v.SetBytes([]byte(`"result"`))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), s, n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), s, n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(v.Index(i), s, n)
		}
	case reflect.String:
		v.SetString(s)
	case reflect.Int64:
		v.SetInt(1<<63 - 1)
	}
}

// texts calls f with every text in v.
func texts(v reflect.Value, f func(string)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			texts(v.Elem(), f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			texts(v.Field(i), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			texts(v.Index(i), f)
		}
	case reflect.String:
		f(v.String())
	}
}

func printable(t *testing.T, m wire.Message) {
	t.Helper()
	texts(reflect.ValueOf(m), func(s string) {
		if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%T has %q", m, s)
		}
	})
}

// Every text of a node, in any field, becomes one line of printable characters.
func TestDecodeCleansTextsOfNodes(t *testing.T) {
	t.Parallel()
	for _, m := range []wire.Message{&wire.Health{}, &wire.CommandAck{}, &wire.Event{}} {
		fill(reflect.ValueOf(m).Elem(), hostile, 3)
		switch m := m.(type) { // ids are refused, not cleaned: they are keys
		case *wire.CommandAck:
			m.CommandID = "c"
		case *wire.Event:
			m.EventID = "e"
		}
		b, err := wire.Encode(m, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		e, err := wire.Decode(b)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		printable(t, e.Message)
	}
	e, err := wire.Decode([]byte(`{"type":"auth","payload":{"registration_token":"t","software_version":"1\u001b[2J","device_type":"e\u202e"}}`))
	if err != nil {
		t.Fatal(err)
	}
	printable(t, e.Message)
	for _, id := range []string{"a\u009b", "a\u202eb", "a\u2028b", "a\x1bb", "a\ufffdb"} {
		b, _ := json.Marshal(id)
		if _, err := wire.Decode(fmt.Appendf(nil, `{"type":"event","payload":{"event_id":%s}}`, b)); err == nil {
			t.Errorf("event id %q is accepted", id)
		}
	}
}

// Every list and text of a node is bounded.
func TestDecodeBoundsTextsOfNodes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("c", 1000)
	var caps []string
	for range 900 {
		caps = append(caps, long)
	}
	h := &wire.Health{Status: "melting", Version: "1.0.0", Capabilities: caps, Upgrade: &wire.Upgrade{
		Status: long, CurrentVersion: long, PreviousVersion: long, TargetVersion: long, Channels: []string{long, ""},
		Progress: &wire.Progress{Phase: long, BytesDone: 1<<63 - 1, BytesTotal: -1},
	}}
	b, err := wire.Encode(h, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e, err := wire.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	got := e.Message.(*wire.Health)
	if b, _ := json.Marshal(got); len(b) > 8<<10 {
		t.Errorf("a health beat of %d bytes", len(b))
	}
	if len(got.Capabilities) != wire.MaxCapabilities || len(got.Upgrade.Channels) != 1 || got.Status != wire.StatusDegraded {
		t.Errorf("%d capabilities, channels %v, status %s", len(got.Capabilities), got.Upgrade.Channels, got.Status)
	}
	if p := got.Upgrade.Progress; p.BytesDone < 0 || p.BytesDone > 1<<50 || p.BytesTotal != 0 {
		t.Errorf("progress %+v", *p)
	}

	ev := &wire.Event{Severity: "CRITICAL", Category: long[:100], Message: "m"}
	for i := range wire.MaxJournal {
		ev.Details.Journal = append(ev.Details.Journal, fmt.Sprintf("%d %s", i, strings.Repeat("j", wire.MaxText-10)))
		ev.Details.FailedStarts = append(ev.Details.FailedStarts, strings.Repeat("s", wire.MaxText-10))
	}
	if b, err = wire.Encode(&wire.Event{Severity: ev.Severity, Category: ev.Category, Message: "m", Details: wire.Details{Journal: ev.Details.Journal}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if e, err = wire.Decode(b); err != nil {
		t.Fatal(err)
	}
	found := wire.Trial{Contradictions: -1, Link: long + "\x1b", Probe: long, ProbeBefore: long}
	for range 10 * wire.MaxStarts {
		found.NotCounted = append(found.NotCounted, long)
	}
	if b, err = wire.Encode(&wire.Event{Details: wire.Details{Trial: &found}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	other, err := wire.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(other.Message.(*wire.Event).Details.Trial); len(b) > 24<<10 || bytes.Contains(b, []byte("u001b")) || other.Message.(*wire.Event).Details.Trial.Contradictions != 0 {
		t.Errorf("what a trial found has %d bytes", len(b))
	}
	d := e.Message.(*wire.Event)
	size := len(strings.Join(d.Details.Journal, ""))
	if last := d.Details.Journal[len(d.Details.Journal)-1]; size > wire.MaxJournalBytes || size < wire.MaxJournalBytes/2 || !strings.HasPrefix(last, "63 ") {
		t.Errorf("a journal of %d bytes, whose last line begins with %.10q", size, last)
	}
	if d.Severity != release.Critical || len(d.Category) > release.MaxNameLen {
		t.Errorf("severity %q, category of %d bytes", d.Severity, len(d.Category))
	}
}

// Warnings are bounded and printable, whatever a node sends, and change nothing else of the
// message. Without any, the message is the same as that of an older agent.
func TestDecodeBoundsWarnings(t *testing.T) {
	t.Parallel()
	many := []string{"", hostile + strings.Repeat("w", 600)}
	for i := range 1000 {
		many = append(many, fmt.Sprintf("%d %s%s", i, hostile, strings.Repeat("ü", 200)))
	}
	b, err := wire.Encode(&wire.Health{Status: wire.StatusOK, Version: "1.0.0", Warnings: many}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e, err := wire.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	printable(t, e.Message)
	h := e.Message.(*wire.Health)
	if len(h.Warnings) != wire.MaxWarnings || h.Status != wire.StatusOK {
		t.Fatalf("%d warnings, status %s", len(h.Warnings), h.Status)
	}
	for i, w := range h.Warnings {
		if w == "" || len(w) > wire.MaxWarning || i > 0 && !strings.HasPrefix(w, fmt.Sprint(i-1, " a")) {
			t.Errorf("warning %d of %d bytes: %q", i, len(w), w)
		}
	}
	if b, err = wire.Encode(&wire.Health{Status: wire.StatusOK}, time.Now()); err != nil || strings.Contains(string(b), "warnings") {
		t.Errorf("%s, %v", b, err)
	}
	if e, err = wire.Decode(b); err != nil || e.Message.(*wire.Health).Warnings != nil {
		t.Errorf("%+v, %v", e.Message, err)
	}
}

// What a trial waits for is bounded and printable. Without a trial the message is that of
// an older agent.
func TestDecodeBoundsHolds(t *testing.T) {
	t.Parallel()
	for _, h := range []*wire.Health{
		{Trial: hostile + strings.Repeat("t", 600), Hold: &wire.Hold{Reason: hostile + strings.Repeat("ü", 5000), Since: time.Unix(1<<37, 0)}},
		{Trial: wire.TrialUnproven, Hold: &wire.Hold{Since: time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)}},
	} {
		b, err := wire.Encode(h, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		e, err := wire.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		printable(t, e.Message)
		got := e.Message.(*wire.Health)
		if len(got.Trial) > release.MaxNameLen || len(got.Hold.Reason) > wire.MaxHold {
			t.Errorf("%d and %d bytes", len(got.Trial), len(got.Hold.Reason))
		}
		if early := h.Hold.Since.Year() < 1970; got.Hold.Since.IsZero() != early {
			t.Errorf("since %v", got.Hold.Since)
		}
	}
	if b, err := wire.Encode(&wire.Health{Status: wire.StatusOK}, time.Now()); err != nil || strings.Contains(string(b), "trial") || strings.Contains(string(b), "hold") {
		t.Errorf("%s, %v", b, err)
	}
}

// A node that reports no trial is on one while its upgrade is pending: an earlier agent.
func TestTrialState(t *testing.T) {
	t.Parallel()
	pending := &wire.Upgrade{Status: wire.StatusPendingHealth}
	for _, tt := range []struct {
		h    wire.Health
		want string
	}{
		{wire.Health{}, ""},
		{wire.Health{Upgrade: &wire.Upgrade{Status: "stable"}}, ""},
		{wire.Health{Upgrade: pending}, wire.TrialOpen},
		{wire.Health{Upgrade: pending, Trial: wire.TrialGuard}, wire.TrialGuard},
		{wire.Health{Trial: wire.TrialUnproven}, wire.TrialUnproven},
	} {
		if got := tt.h.TrialState(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.h, got, tt.want)
		}
	}
}

// A time that no device can have becomes the zero time, because JSON cannot represent
// it.
func TestDecodeRefusesImpossibleTimes(t *testing.T) {
	t.Parallel()
	for stamp, zero := range map[string]bool{
		"9999-12-31T23:59:59-01:00": true, "0000-01-01T00:00:00+01:00": true, "0001-01-01T00:00:00Z": true, "9999-12-31T23:59:59Z": true,
		"1970-01-01T00:00:10Z": false, "2026-11-26T00:00:00+14:00": false, "2106-02-07T06:28:16Z": false,
	} {
		e, err := wire.Decode(fmt.Appendf(nil, `{"type":"pong","timestamp":%q,"payload":null}`, stamp))
		if err != nil || e.Time.IsZero() != zero {
			t.Errorf("%s: %v, %v", stamp, e.Time, err)
		}
		if _, err := json.Marshal(e.Time); err != nil {
			t.Errorf("%s: %v", stamp, err)
		}
	}
}

func TestSeverities(t *testing.T) {
	t.Parallel()
	for s, want := range map[release.Severity]release.Severity{"info": release.Info, "Minor": release.Minor, "MAJOR": release.Major, "bad": release.Warning, "": release.Warning} {
		if got := s.Normal(); got != want {
			t.Errorf("%q: %q", s, got)
		}
	}
}

// An event is kept whatever another program means by "trial".
func TestAForeignTrialCostsNoEvent(t *testing.T) {
	t.Parallel()
	for _, trial := range []string{`"beta"`, "true", "7", "[]", "null", `{"contradictions":"2"}`, `{"contradictions":1e30}`, `{"not_counted":{"a":1}}`, `{"link":[]}`} {
		e, err := wire.Decode([]byte(`{"type":"event","payload":{"event_id":"e","message":"m","details":{"error_code":"upgrade_completed","trial":` + trial + `}}}`))
		if err != nil {
			t.Errorf("%s: %v", trial, err)
		} else if d := e.Message.(*wire.Event).Details; d.ErrorCode != release.Completed || d.Trial != nil && !reflect.DeepEqual(*d.Trial, wire.Trial{}) {
			t.Errorf("%s: %+v", trial, d)
		}
	}
}

// A digest is one, or it is not known. That of a command stays as it is, so that the node
// refuses what it cannot be.
func TestDigestsOfManifests(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("0a", 32)
	for text, want := range map[string]string{digest: digest, "": "", "x": "", strings.ToUpper(digest): "", digest + "00": "", "sha256:" + digest: "", strings.Repeat("a", 1<<17): ""} {
		for _, typ := range []string{"auth", "health"} {
			e, err := wire.Decode(fmt.Appendf(nil, `{"type":%q,"payload":{"manifest_sha256":%q}}`, typ, text))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			switch m := e.Message.(type) {
			case *wire.Auth:
				got = m.ManifestSHA256
			case *wire.Health:
				got = m.ManifestSHA256
			}
			if got != want {
				t.Errorf("%s: %.80q became %.80q, want %q", typ, text, got, want)
			}
		}
		e, err := wire.Decode(fmt.Appendf(nil, `{"type":"command","payload":{"command_id":"c","action":{"type":"upgrade_binary","manifest_sha256":%q}}}`, text))
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Message.(*wire.Command).Action.ManifestSHA256; (got == "") != (text == "") || len(got) > 128 || text == digest && got != digest {
			t.Errorf("command: %.80q became %q", text, got)
		}
	}
}
