package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

// Secret is a text that nothing prints: neither fmt nor a log nor an encoder. Reveal returns it.
type Secret string

const hidden = "(hidden)"

// Reveal returns the text.
func (s Secret) Reveal() string { return string(s) }

// String returns a placeholder, or "" if there is no text.
func (s Secret) String() string {
	if s == "" {
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

// MarshalJSON writes the placeholder.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText writes the placeholder. It belongs to the pointer, because go-toml writes a string
// whose own type has it as it is.
func (s *Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
