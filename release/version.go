package release

import (
	"fmt"

	"github.com/Masterminds/semver/v3"
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

func (v Version) parsed() *semver.Version {
	p, err := semver.StrictNewVersion(v.s)
	if err != nil {
		panic("release: Version not made by ParseVersion: " + v.s)
	}
	return p
}

// ParseVersion parses s, of at most MaxVersionLen bytes. Every error has the code
// VersionInvalid.
func ParseVersion(s string) (Version, error) {
	if len(s) > MaxVersionLen {
		return Version{}, Errorf(VersionInvalid, "version of %d bytes, more than %d", len(s), MaxVersionLen)
	}
	v, err := semver.StrictNewVersion(s)
	if err != nil {
		return Version{}, Errorf(VersionInvalid, "version %q is not MAJOR.MINOR.PATCH as semver.org defines it", s)
	}
	if v.String() != s {
		return Version{}, Errorf(VersionInvalid, "version %q is not in the form of semver.org; write %q", s, v)
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
	if v.IsZero() {
		return 0
	}
	return v.parsed().Major()
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
	return v.parsed().Compare(w.parsed())
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
	from, to := v.parsed(), w.parsed()
	if to.Major() < from.Major() {
		return from.Major() - to.Major(), 0
	}
	return 0, from.Minor() - to.Minor()
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
