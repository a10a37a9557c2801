package release

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/semver"
)

// MaxVersionLen bounds a version string, in bytes. Versions name directories,
// links and URLs.
const MaxVersionLen = 64

// Version is a strict semantic version (semver.org 2.0.0): three numbers, no
// leading "v". Its text is safe as a file name and in a URL path: it contains
// only [0-9A-Za-z.+-] and starts with a digit. The zero value is no version.
// Two versions are == if their texts are equal, including build metadata.
type Version struct {
	s string // parsed for each comparison, of which there are few; so == works
}

// numbers returns the three numbers of v.
func (v Version) numbers() (n [3]uint64, ok bool) {
	core, _, _ := strings.Cut(v.s, "+")
	core, _, _ = strings.Cut(core, "-")
	parts := strings.Split(core, ".")
	if len(parts) != len(n) {
		return n, false
	}
	for i, p := range parts {
		var err error
		if n[i], err = strconv.ParseUint(p, 10, 64); err != nil {
			return n, false
		}
	}
	return n, true
}

// ParseVersion parses s, of at most MaxVersionLen bytes. Every error has the code
// VersionInvalid.
func ParseVersion(s string) (Version, error) {
	if len(s) > MaxVersionLen {
		return Version{}, Errorf(VersionInvalid, "version of %d bytes, more than %d", len(s), MaxVersionLen)
	}
	// IsValid also takes "1" and "1.2", and numbers of any length.
	if _, ok := (Version{s}).numbers(); !ok || !semver.IsValid("v"+s) {
		return Version{}, Errorf(VersionInvalid, "version %q is not MAJOR.MINOR.PATCH as semver.org defines it", s)
	}
	return Version{s}, nil
}

// MustVersion is ParseVersion for constants; it panics on an error.
func MustVersion(s string) Version {
	v, err := ParseVersion(s)
	if err != nil {
		panic(err)
	}
	return v
}

func (v Version) String() string { return v.s }

// Major returns the first number of v.
func (v Version) Major() uint64 {
	n, _ := v.numbers()
	return n[0]
}

// IsZero reports whether v is no version.
func (v Version) IsZero() bool { return v.s == "" }

// Compare returns -1, 0 or 1 by semver precedence, which ignores build metadata. The
// zero Version comes before all others.
func (v Version) Compare(w Version) int {
	switch {
	case v == w:
		return 0
	case v.IsZero():
		return -1
	case w.IsZero():
		return 1
	}
	return semver.Compare("v"+v.s, "v"+w.s)
}

// MarshalText returns the text of v, as in the manifest and in state.json.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText parses v; empty text is the zero Version.
func (v *Version) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*v = Version{}
		return nil
	}
	p, err := ParseVersion(string(b))
	if err != nil {
		return err
	}
	*v = p
	return nil
}

// stepsBack returns how many versions a move from v to w goes back: majors or, within
// a major, minors. Both are 0 for a move forward.
func (v Version) stepsBack(w Version) (majors, minors uint64) {
	if v.IsZero() || w.IsZero() || w.Compare(v) >= 0 {
		return 0, 0
	}
	from, _ := v.numbers()
	to, _ := w.numbers()
	if to[0] < from[0] {
		return from[0] - to[0], 0
	}
	return 0, from[1] - to[1]
}

// CheckName returns an error unless s is a valid name of a channel, an architecture or
// a variant: 1 to MaxNameLen bytes of [0-9A-Za-z_.-]. The error begins with what.
func CheckName(what, s string) error { return checkName(what, s, MaxNameLen) }

// checkName allows [0-9A-Za-z_.-], 1 to limit bytes.
func checkName(what, s string, limit int) error {
	if s == "" {
		return fmt.Errorf("%s is missing", what)
	}
	if len(s) > limit {
		return fmt.Errorf("%s has %d bytes, more than %d", what, len(s), limit)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return fmt.Errorf("%s %q contains %q; allowed are letters, digits, '_', '-' and '.'", what, s, c)
		}
	}
	return nil
}
