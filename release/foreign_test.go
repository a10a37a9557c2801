package release

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestForeign(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 200, ""},
		{"404 Not Found", 200, "404 Not Found"},
		{"Größe 中文", 200, "Größe 中文"},
		{"a\nb\r\tc", 200, "a b  c"},
		{"\x00\x1b[31m\x7f\u0085", 200, "??[31m??"},
		{"\u202e\u2028\u2029\u200b\ufeff", 200, "?????"},
		{"\xff\xc3(\xed\xa0\x80", 200, "??(???"},
		{"exactly", 7, "exactly"},
		{"one more", 7, "one ..."},
		{"ääää", 8, "ääää"},
		{"äääää", 8, "ää..."},
		{"abcdef", 3, "..."},
		{"abcdef", 2, "ab"},
		{"ä", 1, ""},
		{"abc", 0, ""},
		{"abc", -1, ""},
	} {
		if got := Foreign(tt.in, tt.limit); got != tt.want {
			t.Errorf("Foreign(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
	if got := Foreign(strings.Repeat("x", 80<<20), ForeignLimit); len(got) != ForeignLimit || !strings.HasSuffix(got, "x...") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func FuzzForeign(f *testing.F) {
	f.Add("a\n\xff\u202e", 5)
	f.Add(strings.Repeat("ä", 300), ForeignLimit)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		got := Foreign(s, limit)
		if len(got) > max(limit, 0) || !utf8.ValidString(got) {
			t.Errorf("Foreign(%q, %d) = %q", s, limit, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("Foreign(%q, %d) holds %q", s, limit, r)
			}
		}
		if again := Foreign(got, limit); again != got {
			t.Errorf("Foreign(%q) = %q, and of that %q", s, got, again)
		}
	})
}

// An error about a manifest quotes at most one line of it.
func TestErrorsOfAManifestAreShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("y\u202e", 100_000)
	for _, text := range []string{
		`{"released_at": "` + long + `"}`, `{"version": "` + long + `"}`, `{"sequence": "` + long + `"}`, `{"channel": {"` + long + `": 1}}`,
		`{"version":"1.0.0","device_type":"` + long + `"}`, `{"version":"1.0.0","device_type":"e","channel":"s","artefacts":[{"arch":"a","variant":"v","url":"u","sha256":"` + long + `"}]}`,
	} {
		if _, err := Parse([]byte(text)); err == nil || len(err.Error()) > 400 || strings.Contains(err.Error(), "\u202e") {
			t.Errorf("%.40s: %.900v", text, err)
		}
	}
	for _, name := range []string{long, "https://x/" + long} {
		a := Artefact{URL: name}
		if _, err := a.File("https://x"); err == nil || len(err.Error()) > 700 {
			t.Errorf("%.900v", err)
		}
	}
}
