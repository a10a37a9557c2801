package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// valid is a manifest as existing publishers write it, without sizes.
const valid = `{
  "version": "1.5.0", "device_type": "edge", "channel": "stable",
  "released_at": "2026-11-01T10:00:00Z", "sequence": 42,
  "artefacts": [
    {"arch": "x86_64-linux", "variant": "default",
     "url": "https://github.com/o/r/releases/download/v1.5.0/edge-1.5.0-x86_64-linux.tar.gz",
     "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"arch": "x86_64-linux", "variant": "full",
     "url": "https://github.com/o/r/releases/download/v1.5.0/edge-full.tar.gz",
     "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
  ]
}`

func code(t *testing.T, err error) Code {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v carries no code", err)
	}
	return e.Code
}

func TestParseAcceptsPublishedManifests(t *testing.T) {
	t.Parallel()
	m, err := Parse([]byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	if m.Version.String() != "1.5.0" || m.Sequence != 42 || len(m.Artefacts) != 2 {
		t.Errorf("got %+v", m)
	}
	if _, err := Parse([]byte(strings.Replace(valid, `"sequence"`, `"new_field": {"a": 1}, "sequence"`, 1))); err != nil {
		t.Errorf("a field of a newer publisher: %v", err)
	}
}

func TestParseRefusesAndNamesTheRule(t *testing.T) {
	t.Parallel()
	sub := func(old, new string) string {
		if !strings.Contains(valid, old) {
			t.Fatalf("no %q in the valid manifest", old)
		}
		return strings.Replace(valid, old, new, 1)
	}
	for _, tt := range []struct{ in, want string }{
		{"", "EOF"},
		{"null", "version is missing"},
		{"[]", "cannot unmarshal"},
		{valid + "{}", "more bytes after its end"},
		{strings.Repeat(" ", MaxManifest+1), "more than 1048576"},
		{sub(`"1.5.0"`, `"v1.5.0"`), "not MAJOR.MINOR.PATCH"},
		{sub(`"1.5.0"`, `"../../etc"`), "not MAJOR.MINOR.PATCH"},
		{sub(`"edge"`, `""`), "device_type is missing"},
		{sub(`"edge"`, `"a/b"`), `device_type "a/b" contains '/'`},
		{sub(`"stable"`, `"`+strings.Repeat("s", 65)+`"`), "channel has 65 bytes, more than 64"},
		{sub(`42`, `-1`), "cannot unmarshal"},
		{sub(`"sequence"`, `"rollback_floor": "1.5.1", "sequence"`), "rollback_floor 1.5.1 is above"},
		{sub(`"sequence"`, `"commands": ["`+strings.Repeat("x", 41)+`"], "sequence"`), "command 1 has 41 bytes, more than 40"},
		{sub(`"sequence"`, `"commands": ["probe", "\u001b[2J"], "sequence"`), "command 2"},
		{sub(`"sequence"`, `"commands": ["a"`+strings.Repeat(`,"a"`, 16)+`], "sequence"`), "17 commands, more than 16"},
		{sub(`"sequence"`, `"first_start_secs": 3601, "sequence"`), "first_start_secs 3601 is outside"},
		{sub(`"sequence"`, `"first_start_secs": -1, "sequence"`), "first_start_secs -1 is outside"},
		{sub(`"full"`, `"default"`), "artefact 2: a second one for arch x86_64-linux"},
		{sub(`e3b0`, `E3B0`), "not 64 lower-case hex digits"},
		{sub(`e3b0`, ``), "not 64 lower-case hex digits"},
		{sub(`"sha256"`, `"size": -1, "sha256"`), "size -1 is outside"},
		{sub(`"sha256"`, `"unpacked_size": 68719476737, "sha256"`), "unpacked_size 68719476737 is outside"},
		{sub(`"url": "https`, `"url": "", "x": "https`), "url has 0 bytes"},
		{`{"version":"1.0.0","device_type":"e","channel":"s","artefacts":[]}`, "no artefacts"},
	} {
		_, err := Parse([]byte(tt.in))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60q: got %v, want %q", tt.in, err, tt.want)
			continue
		}
		if c := code(t, err); c != ManifestInvalid {
			t.Errorf("%q has the code %s", tt.want, c)
		}
	}
}

func TestParseBoundsArtefacts(t *testing.T) {
	t.Parallel()
	m, _ := Parse([]byte(valid))
	a := m.Artefacts[0]
	m.Artefacts = nil
	for i := range MaxArtefacts + 1 {
		a.Variant = fmt.Sprint("v", i)
		m.Artefacts = append(m.Artefacts, a)
	}
	b, _ := json.Marshal(m)
	if _, err := Parse(b); err == nil || !strings.Contains(err.Error(), "257 artefacts") {
		t.Errorf("got %v", err)
	}
}

func TestVersionsAreStrict(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"0.0.0", "1.2.3", "1.0.0-rc.1", "1.0.0+build.5", "10.20.30-a-b.c"} {
		if v, err := ParseVersion(s); err != nil || v.String() != s {
			t.Errorf("%q: %v, %v", s, v, err)
		}
	}
	for _, s := range []string{"", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3/..", "1.2.3 ", " 1.2.3", "1.2.3\n", "..", "１.2.3",
		"99999999999999999999.0.0", "1.0.0-" + strings.Repeat("a", 64)} {
		if v, err := ParseVersion(s); err == nil {
			t.Errorf("%q is parsed as %v", s, v)
		} else if c := code(t, err); c != VersionInvalid {
			t.Errorf("%q has the code %s", s, c)
		}
	}
}

func TestVersionOrder(t *testing.T) {
	t.Parallel()
	order := []string{"0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.9.0", "1.10.0", "2.0.0"}
	last := Version{}
	for _, s := range order {
		v := MustVersion(s)
		if last.Compare(v) >= 0 || v.Compare(last) <= 0 {
			t.Errorf("%s is not above %q", v, last)
		}
		last = v
	}
	if MustVersion("1.0.0+a").Compare(MustVersion("1.0.0+b")) != 0 {
		t.Error("build metadata counts")
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	host := Host{DeviceType: "edge", Arch: "x86_64-linux", Variant: "default"}
	p := Policy{Enabled: true, Channels: []string{"stable"}, MinVersion: MustVersion("1.0.0"), RollbackGrace: 1, Floor: MustVersion("1.1.0")}
	running := MustVersion("2.3.0")
	for _, tt := range []struct {
		name        string
		policy      func(*Policy)
		to, channel string
		want        Code
	}{
		{"up", nil, "2.4.0", "", ""},
		{"across majors, up", nil, "4.0.0", "", ""},
		{"the same", nil, "2.3.0", "", ""},
		{"one minor back", nil, "2.2.9", "", ""},
		{"patches back", func(p *Policy) { p.RollbackGrace = 0 }, "2.3.0-rc.1", "", ""},
		{"two minors back", nil, "2.1.0", "", VersionTooOld},
		{"two minors back, allowed", func(p *Policy) { p.RollbackGrace = 2 }, "2.1.0", "", ""},
		{"a major back", nil, "1.9.0", "", VersionTooOld},
		{"a major back, allowed", func(p *Policy) { p.RollbackMajors = []uint64{1} }, "1.9.0", "", ""},
		{"below the operator's floor", func(p *Policy) { p.RollbackMajors = []uint64{0} }, "0.9.0", "", VersionTooOld},
		{"below a release's floor", func(p *Policy) { p.RollbackMajors = []uint64{1} }, "1.0.5", "", VersionTooOld},
		{"off", func(p *Policy) { p.Enabled = false }, "2.4.0", "", Disabled},
		{"the zero policy", func(p *Policy) { *p = Policy{} }, "2.4.0", "", Disabled},
		{"another channel", nil, "2.4.0", "beta", ChannelNotAllowed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := p
			if tt.policy != nil {
				tt.policy(&p)
			}
			r, err := NewRequest(tt.to, tt.channel, "", "", host)
			if err != nil {
				t.Fatal(err)
			}
			err = p.Check(r, running)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || code(t, err) != tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestRequestsForAnotherMachine(t *testing.T) {
	t.Parallel()
	host := Host{DeviceType: "edge", Arch: "x86_64-linux", Variant: "default"}
	_, err := NewRequest("1.0.0", "", "aarch64-linux", "", host)
	if c := code(t, err); c != ArchMismatch {
		t.Error(c)
	}
	_, err = NewRequest("1.0.0", "", "", "full", host)
	if c := code(t, err); c != VariantMismatch {
		t.Error(c)
	}
	_, err = NewRequest("../1", "", "", "", host)
	if c := code(t, err); c != VersionInvalid {
		t.Error(c)
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	m, err := Parse([]byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	host := Host{DeviceType: "edge", Arch: "x86_64-linux", Variant: "full"}
	r := Request{Version: m.Version, Channel: "stable", Arch: host.Arch, Variant: host.Variant}
	if a, err := (Policy{}).Select(m, r, host); err != nil || !reflect.DeepEqual(a, m.Artefacts[1]) {
		t.Errorf("got %+v, %v", a, err)
	}
	for name, tt := range map[string]struct {
		change func(*Policy, *Request, *Host)
		want   Code
	}{
		"version":     {func(_ *Policy, r *Request, _ *Host) { r.Version = MustVersion("1.6.0") }, ManifestInvalid},
		"channel":     {func(_ *Policy, r *Request, _ *Host) { r.Channel = "beta" }, ManifestInvalid},
		"device type": {func(_ *Policy, _ *Request, h *Host) { h.DeviceType = "relay" }, ManifestInvalid},
		"sequence":    {func(p *Policy, _ *Request, _ *Host) { p.FloorSequence = 43 }, SequenceTooOld},
		"arch":        {func(_ *Policy, r *Request, _ *Host) { r.Arch = "armv7-linux" }, ArchMismatch},
		"variant":     {func(_ *Policy, r *Request, _ *Host) { r.Variant = "lite" }, VariantMismatch},
	} {
		p, r, h := Policy{}, r, host
		tt.change(&p, &r, &h)
		if _, err := p.Select(m, r, h); err == nil || code(t, err) != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}

func TestArtefactsStayUnderTheirRelease(t *testing.T) {
	t.Parallel()
	base := BaseURL("https://github.com/o/r", MustVersion("1.5.0"))
	for _, tt := range []struct{ url, file string }{
		{base + "/edge.tar.gz", "edge.tar.gz"},
		{base + "/edge-1.5.0+b1.tar.gz", "edge-1.5.0+b1.tar.gz"},
		{base + "/../v1.4.0/edge.tar.gz", ""},
		{base + "/a/b", ""},
		{base + "/", ""},
		{base + "/..", ""},
		{base + "/.hidden", ""},
		{base + "/x?y", ""},
		{base + "/x#y", ""},
		{base + "/%2e%2e", ""},
		{base + "x/edge.tar.gz", ""},
		{"http://github.com/o/r/releases/download/v1.5.0/edge.tar.gz", ""},
		{"https://evil.example/edge.tar.gz", ""},
	} {
		got, err := Artefact{URL: tt.url}.File(base)
		if got != tt.file || (err == nil) != (tt.file != "") {
			t.Errorf("%s: got %q, %v", tt.url, got, err)
		}
		if err != nil && code(t, err) != URLInvalid {
			t.Errorf("%s: code %s", tt.url, code(t, err))
		}
	}
}

func TestEveryCodeHasItsSeverity(t *testing.T) {
	t.Parallel()
	got := map[Severity]int{}
	for _, c := range Codes() {
		if !strings.HasPrefix(string(c), "upgrade_") {
			t.Errorf("code %q", c)
		}
		got[c.Severity()]++
	}
	if d := cmp.Diff(map[Severity]int{Info: 7, Warning: 19, Critical: 5}, got); d != "" {
		t.Error(d)
	}
	if Code("upgrade_from_the_future").Severity() != Critical {
		t.Error("an unknown code is not critical")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(valid))
	f.Add([]byte(`{"version":"1.0.0","device_type":"e","channel":"s","artefacts":[{}]}`))
	f.Add([]byte(strings.Replace(valid, `"sequence"`, `"commands": ["probe", "config check"], "first_start_secs": 600, "sequence"`, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if c := code(t, err); c != ManifestInvalid {
				t.Errorf("%v has the code %s", err, c)
			}
			return
		}
		if len(m.Commands) > MaxCommands || m.FirstStartSecs < 0 || m.FirstStartSecs > MaxFirstStartSecs {
			t.Errorf("%d commands, %d s", len(m.Commands), m.FirstStartSecs)
		}
		for _, c := range m.Commands {
			if Foreign(c, MaxCommandLen) != c {
				t.Errorf("command %q", c)
			}
		}
		base := BaseURL("https://github.com/o/r", m.Version)
		for _, a := range m.Artefacts {
			if name, err := a.File(base); err == nil && (strings.ContainsAny(name, "/\\\x00%?#") || strings.HasPrefix(name, ".")) {
				t.Errorf("file name %q", name)
			}
		}
		out, err := json.Marshal(m)
		if err != nil {
			t.Skip("a time that JSON cannot hold")
		}
		if _, err := Parse(out); err != nil {
			t.Errorf("what was parsed does not parse again: %v", err)
		}
	})
}
