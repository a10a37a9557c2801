package release

import (
	"fmt"

	"github.com/Masterminds/semver/v3"
)

// MaxVersionLen bounds a version string, in bytes. Versions name directories,
// links and URLs.
const MaxVersionLen = 64

// Version is a strict semantic version (semver.org 2.0.0): three numbers, no
// leading "v". Its text is safe as a file name and in a URL path: it holds
// only [0-9A-Za-z.+-] and starts with a digit. The zero value is no version.
type Version struct {
	v *semver.Version
}

// ParseVersion parses s.
func ParseVersion(s string) (Version, error) {
	if len(s) > MaxVersionLen {
		return Version{}, Errorf(VersionInvalid, "version of %d bytes, more than %d", len(s), MaxVersionLen)
	}
	v, err := semver.StrictNewVersion(s)
	if err != nil {
		return Version{}, Errorf(VersionInvalid, "version %q is not MAJOR.MINOR.PATCH of semver.org", s)
	}
	if v.String() != s {
		return Version{}, Errorf(VersionInvalid, "version %q is not written as semver.org says (%q would be)", s, v)
	}
	return Version{v}, nil
}

func (v Version) String() string {
	if v.v == nil {
		return ""
	}
	return v.v.String()
}

// IsZero reports whether v is no version.
func (v Version) IsZero() bool { return v.v == nil }

// Compare returns -1, 0 or 1 by semver precedence; build metadata does not
// count. The zero Version is before all others.
func (v Version) Compare(w Version) int {
	switch {
	case v.v == nil && w.v == nil:
		return 0
	case v.v == nil:
		return -1
	case w.v == nil:
		return 1
	}
	return v.v.Compare(w.v)
}

// MarshalText writes v as in the manifest and in state.json.
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

// stepsBack says how far a move from v to w goes back: by majors and, within
// a major, by minors. Both are 0 for a move forward.
func (v Version) stepsBack(w Version) (majors, minors uint64) {
	if v.v == nil || w.v == nil || w.Compare(v) >= 0 {
		return 0, 0
	}
	if w.v.Major() < v.v.Major() {
		return v.v.Major() - w.v.Major(), 0
	}
	return 0, v.v.Minor() - w.v.Minor()
}

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
			return fmt.Errorf("%s %q holds %q; allowed are letters, digits, '_', '-' and '.'", what, s, c)
		}
	}
	return nil
}
