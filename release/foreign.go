package release

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// ForeignLimit is the most bytes of another program's text that an error or an
// event quotes, unless its writer has a reason for another limit.
const ForeignLimit = 200

// Foreign returns text of another program (a status line, an error, a name)
// in a form that is safe to log, to store and to send: valid UTF-8 on one
// line, without control or formatting characters, of at most limit bytes. A
// text that is longer ends in "...". Foreign reads no more of s than it returns.
func Foreign(s string, limit int) string {
	const end = "..."
	var b strings.Builder
	cut := 0 // the longest length at which end still fits
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			r = '?'
		case r == '\n' || r == '\r' || r == '\t':
			r = ' '
		case !unicode.IsPrint(r):
			// Control characters, formatting such as a change of the writing direction,
			// line separators, and unassigned code points.
			r = '?'
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			if limit < len(end) {
				return b.String()
			}
			return b.String()[:cut] + end
		}
		b.WriteRune(r)
		if b.Len() <= limit-len(end) {
			cut = b.Len()
		}
		i += size
	}
	return b.String()
}

// ForeignError returns an error that wraps err, with err's text made safe by Foreign.
// It returns nil for nil.
func ForeignError(err error, limit int) error {
	if err == nil {
		return nil
	}
	return foreignError{Foreign(err.Error(), limit), err}
}

type foreignError struct {
	text string
	err  error
}

func (e foreignError) Error() string { return e.text }
func (e foreignError) Unwrap() error { return e.err }
