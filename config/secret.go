package config

import (
	"fmt"
	"log/slog"
)

// Secret is a text that is not printed by accident: fmt, log/slog and the encoders of JSON, TOML,
// XML and gob write a placeholder. In a field that is not exported, where they call no method, fmt
// and log/slog write an address. A program that follows pointers in such fields, such as a debugger
// or a dumper with package unsafe, still finds the text. Reveal returns it. The zero Secret is "".
type Secret struct {
	held *string // a pointer, so fmt does not follow it; nothing changes the text
}

const hidden = "(hidden)"

// NewSecret returns a Secret with a text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return *s.held
}

// IsZero reports whether the text is "".
func (s Secret) IsZero() bool { return s.held == nil }

// Equal reports whether two texts are the same.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns a placeholder, or "" if there is no text.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// Format writes the placeholder, whatever the verb.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || verb == 'v' && f.Flag('#') {
		fmt.Fprintf(f, "%q", s.String())
		return
	}
	fmt.Fprint(f, s.String())
}

// LogValue is what slog logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText writes the placeholder. The encoders of JSON, TOML and XML call it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the text. FromTOML, FromJSON and the functions that read a file call it for
// strings only. go-toml by itself also calls it for numbers, and encoding/json does not.
func (s *Secret) UnmarshalText(b []byte) error {
	*s = NewSecret(string(b))
	return nil
}

// GobEncode writes the placeholder.
func (s Secret) GobEncode() ([]byte, error) { return []byte(s.String()), nil }

// GobDecode leaves no text, because GobEncode wrote none.
func (s *Secret) GobDecode([]byte) error {
	*s = Secret{}
	return nil
}
