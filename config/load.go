package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/pelletier/go-toml/v2"
)

// MaxFile bounds config.toml, in bytes.
const MaxFile = 1 << 20

// Load reads a config.toml. A key that it does not know is an error that names
// the line. A file that holds a registration token must not be readable by others.
func Load(path string) (Config, error) {
	f, err := parse(path)
	if err == nil {
		err = f.strict()
	}
	if err != nil {
		return Config{}, err
	}
	return f.config, nil
}

// Read loads and checks a config.toml.
func Read(path string) (Settings, error) {
	f, err := parse(path)
	if err == nil {
		err = f.strict()
	}
	if err != nil {
		return Settings{}, err
	}
	s, err := f.resolve()
	if err == nil {
		err = f.misplaced(s)
	}
	return s, err
}

// file is a config.toml that was parsed.
type file struct {
	path    string
	text    []byte
	config  Config
	unknown []unknownKey
}

// unknownKey is a key that Config does not have. In an inline table the key lacks the
// names before the table.
type unknownKey struct{ key, text string }

// parse reads a config.toml. Unknown keys and the mode of the file are no errors. With
// an error the file has what precedes it.
func parse(path string) (file, error) {
	f := file{path: path}
	var err error
	if f.text, err = fsutil.ReadFile(path, MaxFile); err != nil {
		return f, fmt.Errorf("config: %w", err)
	}
	err = decode(f.text, &f.config)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok { // all other keys are decoded
		f.unknown = describeUnknown(strict)
	} else if err != nil {
		return f, fmt.Errorf("config %s: %w", path, explainTOML(err, string(f.text)))
	}
	return f, nil
}

// decode reads TOML into c, which has what precedes an error. The error is that of go-toml.
func decode(text []byte, c *Config) error {
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(c)
	// Secret has UnmarshalText, which go-toml calls for numbers, too. As strings, the same keys
	// accept strings only.
	var secrets struct {
		Manager struct {
			Token string `toml:"registration_token"`
			Proxy string `toml:"proxy"`
		} `toml:"manager"`
	}
	return cmp.Or(toml.Unmarshal(text, &secrets), err)
}

// strict returns an error for an unknown key, a secret that others may read, and a file
// without a device type.
func (f file) strict() error {
	if len(f.unknown) > 0 {
		var lines []string
		var errs []error
		for _, u := range f.unknown {
			lines = append(lines, u.text)
			errs = append(errs, &Error{Key: u.key, Rule: "unknown key", text: u.text})
		}
		return &listed{fmt.Sprintf("config %s: %s", f.path, strings.Join(lines, "; ")), errs}
	}
	if st, err := os.Stat(f.path); err == nil && st.Mode().Perm()&0o077 != 0 && !f.config.Manager.RegistrationToken.IsZero() {
		return f.broken("manager.registration_token", "holds registration_token and others may read it (mode %04o); run: chmod 600 %s", st.Mode().Perm(), f.path)
	}
	if s := f.config.Service; s.InstallRoot == "" && s.Name == "" && s.DeviceType == "" {
		return f.broken("service.device_type", "[service] needs device_type")
	}
	return nil
}

// broken returns the error of a key, whose text names the file and not the key.
func (f file) broken(key, format string, args ...any) error {
	rule := fmt.Sprintf(format, args...)
	return &Error{Key: key, Rule: rule, text: "config " + f.path + ": " + rule}
}

// located puts the line before the text of e.
func located(row int, e *Error) *Error {
	e.text = fmt.Sprintf("line %d: %s", row, e.text)
	return e
}

// describeUnknown returns each unknown key.
func describeUnknown(strict *toml.StrictMissingError) []unknownKey {
	var keys []unknownKey
	for _, e := range strict.Errors {
		row, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		keys = append(keys, unknownKey{key, fmt.Sprintf("line %d: unknown key %q%s", row, key, didYouMean(e.Key()))})
	}
	return keys
}

// explainTOML says in the words of the file what is wrong with it. text is the
// file; its values are quoted only for keys that hold no secret.
func explainTOML(err error, text string) error {
	var dec *toml.DecodeError
	if !errors.As(err, &dec) {
		return err
	}
	row, col := dec.Position()
	keys := configKeys()
	for i := len(dec.Key()); i > 0; i-- { // a value may itself be a table, with keys of its own
		known := strings.ToLower(strings.Join(dec.Key()[:i], ".")) // as the decoder compares
		if want, ok := keys[known]; ok && i == len(dec.Key()) {
			return located(row, NewError(known, " must be %s%s", want, notThis(known, text, row)))
		} else if ok {
			return located(row, NewError(known, " must be %s", want))
		}
	}
	what := release.Foreign(strings.TrimPrefix(dec.Error(), "toml: "), 300)
	if _, why, ok := strings.Cut(what, "struct field config."); ok { // a name of the program, not of the file
		what = "a value of the wrong type: " + why
	}
	return fmt.Errorf("line %d, column %d: %s", row, col, what)
}

// secrets are the keys whose values no error quotes.
var secrets = []string{"manager.registration_token", "manager.proxy", "health.dependency"}

// notThis quotes the value of a key, which stands in the given line.
func notThis(key, text string, row int) string {
	lines := strings.Split(text, "\n")
	for _, s := range secrets {
		if key == s || row < 1 || row > len(lines) {
			return ""
		}
	}
	name, value, ok := strings.Cut(lines[row-1], "=")
	// In an inline table the line has other keys, too, and perhaps a secret.
	if !ok || strings.TrimSpace(name) != key[strings.LastIndex(key, ".")+1:] || strings.Contains(value, "{") || !strings.Contains(key, ".") {
		return ""
	}
	return ", not " + release.Foreign(strings.TrimSpace(value), 60)
}

// configKeys has each key of config.toml, and what its value must be.
func configKeys() map[string]string {
	keys := map[string]string{}
	var walk func(prefix string, t reflect.Type)
	walk = func(prefix string, t reflect.Type) {
		for f := range t.Fields() {
			name := f.Tag.Get("toml")
			if name == "" || name == "-" {
				continue
			}
			key := prefix + name
			switch ft := f.Type; {
			case ft == reflect.TypeFor[Pins]():
				keys[key] = `a text in quotes, or a list of them like ["a", "b"]`
			case ft == reflect.TypeFor[Dependency]():
				keys[key] = dependencyForm
			case ft == reflect.TypeFor[Secret]():
				keys[key] = "a text in quotes"
			case ft.Kind() == reflect.Struct:
				keys[key] = fmt.Sprintf("a section [%s]", key)
				walk(key+".", ft)
			case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.String:
				keys[key] = `a list of texts like ["a", "b"]`
			case ft.Kind() == reflect.Slice:
				keys[key] = "a list of whole numbers of 0 or more like [1, 2]"
			case ft.Kind() == reflect.Bool:
				keys[key] = "true or false"
			case ft.Kind() == reflect.String:
				keys[key] = "a text in quotes"
			case ft.Kind() == reflect.Pointer && ft.Elem().Kind() == reflect.Uint64:
				keys[key] = "a whole number of 0 or more"
			default:
				keys[key] = "a whole number"
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	return keys
}

// didYouMean suggests the known key that is nearest to an unknown one: the same
// name in another section, or one of few other letters.
func didYouMean(key []string) string {
	name := strings.Join(key, ".")
	best, distance := "", 3 // letters that may differ
	for known := range configKeys() {
		d := editDistance(strings.ToLower(name), known)
		if last := key[len(key)-1]; strings.HasSuffix(known, "."+last) {
			d = min(d, 1) // known in another section
		} else {
			d = min(d, editDistance(strings.ToLower(last), known[strings.LastIndex(known, ".")+1:]))
		}
		if d < distance || d == distance && best != "" && known < best {
			best, distance = known, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// editDistance is the number of letters to insert, remove or replace to make b
// of a (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			before, row[j+1] = row[j+1], min(before+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
