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
