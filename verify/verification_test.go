package verify_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/verification.golden")

// random is what differs from run to run in a text: keys, digests, times.
var random = regexp.MustCompile(`[0-9a-f]{32,}|[A-Za-z0-9+/]{40,}=*|\d{4}-\d\d-\d\d[T ][0-9:.]+(?: ?[Z+-]\d*(?: \w+)?)?|\[[0-9 ]+(?:\]|\.\.\.)|line 1:\d+|\d{5,} bytes`)

// check returns what became of a case, for the golden file, and what is wrong.
func (c verification) check(t *testing.T) (golden, wrong string) {
	m := manifest(t, "1.5.0")
	b, err := c.by.Sign(m, c.claims, c.at, c.opt)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	if c.edit != nil {
		m, b = c.edit(m, b)
	}
	trusted := instance()
	if c.ok {
		trusted = c.by
	}
	rel, err := newVerifier(t, trusted, c.rows...).Release(m, b)
	if c.ok {
		s := rel.Signature()
		if err != nil || !rel.OK() || rel.Manifest().Version.String() != "1.5.0" || s.Commit != commit || s.Time.Sub(c.at).Abs() > time.Minute {
			wrong = fmt.Sprintf("refused, or with the wrong signature: %+v, %v", s, err)
		}
		return "taken", wrong
	}
	var coded *release.Error
	switch {
	case err == nil || rel.OK():
		return "taken", "it is taken"
	case !errors.As(err, &coded):
		return err.Error(), "the error has no code"
	case strings.ContainsAny(err.Error(), "\n\r") || strings.Contains(err.Error(), "%!") || len(err.Error()) > 600:
		wrong = "the error is not fit for a log"
	}
	return string(coded.Code) + ": " + random.ReplaceAllString(coded.Error(), "…"), wrong
}

func TestVerification(t *testing.T) {
	t.Parallel()
	var golden strings.Builder
	n, wrong := 0, 0
	for _, c := range cases() {
		got, bad := c.check(t)
		n++
		if bad != "" {
			wrong++
			t.Errorf("%s: %s (%s)", c.name, bad, got)
		}
		fmt.Fprintf(&golden, "%s\n\t%s\n", c.name, got)
	}
	// And whatever else is changed in a bundle: it is refused, or says the same.
	for _, o := range []fakesig.Opt{{}, {TSA: true}, {RekorV2: true}} {
		k, bad := changes(t, o)
		n, wrong = n+k, wrong+bad
	}
	path := filepath.Join("testdata", "verification.golden")
	if *update {
		if err := os.WriteFile(path, []byte(golden.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), golden.String()); diff != "" {
		t.Errorf("the texts are not those of %s (go test ./verify -update rewrites it):\n%s", path, diff)
	}
	t.Logf("verification: %d cases, %d wrong", n, wrong)
}

// same reports whether two releases say the same. Where a log and an authority
// both attest a time, either may be the source.
func same(a, b verify.Release) bool {
	x, y := a.Signature(), b.Signature()
	x.TimeSource, y.TimeSource = "", ""
	x.LogIndex, y.LogIndex = 0, 0 // no log signs it: the proof has an index of its own
	return x == y
}

// changes changes each value of a bundle in turn: a bit of what is base64, the
// last character of another text, a number; and leaves each out.
func changes(t *testing.T, o fakesig.Opt) (n, wrong int) {
	t.Helper()
	m := manifest(t, "1.5.0")
	good, err := instance().Sign(m, claims(), signedAt, o)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, instance(), row)
	right, err := v.Release(m, good)
	if err != nil {
		t.Fatal(err)
	}
	try := func(where string, root any) {
		b, err := json.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if r, err := v.Release(m, b); err == nil && !same(r, right) {
			wrong++
			t.Errorf("%s changed: it is accepted, with %+v", where, r.Signature())
		}
	}
	var root any
	if err := json.Unmarshal(good, &root); err != nil {
		t.Fatal(err)
	}
	var walk func(where string, v any, set func(any))
	walk = func(where string, v any, set func(any)) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				walk(where+"."+k, x, func(y any) { v[k] = y })
				delete(v, k)
				try(where+"."+k+" left out", root)
				v[k] = x
			}
		case []any:
			for i, x := range v {
				walk(fmt.Sprint(where, ".", i), x, func(y any) { v[i] = y })
			}
			set(append(v, v...))
			try(where+" doubled", root)
			set(v)
		case string:
			if raw, err := base64.StdEncoding.DecodeString(v); err == nil && len(raw) > 0 {
				for i := 0; i < len(raw); i += max(1, len(raw)/16) {
					raw[i] ^= 1
					set(base64.StdEncoding.EncodeToString(raw))
					try(where, root)
					raw[i] ^= 1
				}
			}
			set(v + "1")
			try(where, root)
			set("")
			try(where, root)
			set(v)
		}
	}
	walk("", root, func(any) {})
	return n, wrong
}
