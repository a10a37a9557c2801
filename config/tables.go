package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// tables are the sections of Config.
var tables = []string{"service", "manager", "upgrade", "health"}

// FromTOML reads the tables [service], [manager], [upgrade] and [health] of a larger document,
// such as the file of a service that links the agent. It ignores all other tables, except that
// one with nearly the same name, such as [Upgrade], [upgrades] or [upgarde], is an error, and so is an unknown
// key in one of the four. Config.Resolve then checks the values. service.install_root must be set,
// since no path is that of this document.
func FromTOML(doc []byte) (Config, error) {
	var c Config
	if len(doc) > MaxFile {
		return c, tooLong(doc)
	}
	var all map[string]any
	if err := toml.Unmarshal(doc, &all); err == nil { // otherwise decode has the error
		for name, value := range all {
			if _, ok := value.(map[string]any); !ok {
				delete(all, name)
			}
		}
		if err := nearNames(all); err != nil {
			return c, err
		}
	}
	err := decode(doc, &c)
	strict, ok := errors.AsType[*toml.StrictMissingError](err)
	if err != nil && !ok {
		return Config{}, fmt.Errorf("config: %w", explainTOML(err, string(doc)))
	}
	if !ok {
		return rooted(c)
	}
	var errs []error
	for _, u := range describeUnknown(strict) {
		for _, t := range tables {
			if strings.HasPrefix(u.key, t+".") {
				errs = append(errs, &Error{Key: u.key, Rule: "unknown key", text: "config: " + u.text})
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	return rooted(c)
}

// FromJSON is FromTOML for the members of a JSON object. The keys are those of config.toml, in
// lower case.
func FromJSON(doc []byte) (Config, error) {
	var c Config
	if len(doc) > MaxFile {
		return c, tooLong(doc)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc, &members); err != nil {
		return c, fmt.Errorf("config: it is no JSON object: %w", withoutValues(err))
	}
	objects := map[string]any{}
	for name, text := range members {
		if text[0] == '{' {
			objects[name] = nil
		}
	}
	if err := nearNames(objects); err != nil {
		return c, err
	}
	var errs []error
	for _, t := range tables {
		text, ok := members[t]
		if !ok {
			continue
		}
		if unknown := unknownMembers(t, text); unknown != nil {
			errs = append(errs, unknown...)
			continue
		}
		into := map[string]any{"service": &c.Service, "manager": &c.Manager, "upgrade": &c.Upgrade, "health": &c.Health}[t]
		if err := json.Unmarshal(text, into); err != nil {
			errs = append(errs, jsonError(t, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	return rooted(c)
}

func tooLong(doc []byte) error {
	return fmt.Errorf("config: the document has %d bytes; the limit is %d", len(doc), MaxFile)
}

// rooted returns an error if no install root is set.
func rooted(c Config) (Config, error) {
	if c.Service.InstallRoot == "" {
		return Config{}, fmt.Errorf("config: %w", NewError("service.install_root", " is missing; it must be set, since this is not the config.toml of an install root"))
	}
	return c, nil
}

// near reports whether name is t, its plural, or t with one mistake: a letter that is another one, is
// missing, or has changed places with the next one. A longer name, like healthz, is the author's.
func near(name, t string) bool {
	if name == t || name == t+"s" {
		return true
	}
	i := 0
	for i < len(name) && i < len(t) && name[i] == t[i] {
		i++
	}
	rest, of := name[i:], t[i:]
	if of == "" {
		return false
	}
	return rest == of[1:] || len(rest) == len(of) && (rest[1:] == of[1:] || len(of) > 1 && rest[0] == of[1] && rest[1] == of[0] && rest[2:] == of[2:])
}

// nearNames returns an error for each table whose name is nearly that of one of ours.
func nearNames(all map[string]any) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, t := range tables {
			if name != t && near(strings.ToLower(name), t) {
				rule := fmt.Sprintf("unknown table; its name must be %q", t)
				errs = append(errs, &Error{Key: name, Rule: rule, text: fmt.Sprintf("config: %s: %s", name, rule)})
			}
		}
	}
	return errors.Join(errs...)
}

// unknownMembers returns an error for each member of a table that is no key. encoding/json
// ignores the case of the names, and with two cases of one name would take the last.
func unknownMembers(table string, text []byte) []error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil // FromJSON finds the same
	}
	keys := configKeys()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if key := table + "." + name; keys[key] == "" {
			text := fmt.Sprintf("config: unknown key %q%s", key, didYouMean([]string{table, name}))
			errs = append(errs, &Error{Key: key, Rule: "unknown key", text: text})
		}
	}
	return errs
}

// jsonError returns the error of the key of a table. It quotes no value.
func jsonError(table string, err error) error {
	key := table
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		key += "." + e.Field
	}
	if want, ok := configKeys()[key]; ok {
		return NewError(key, " must be %s", want)
	}
	return NewError(key, ": %w", withoutValues(err))
}

// withoutValues keeps an error from quoting what it could not decode: it may be a secret.
func withoutValues(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("a value of the wrong type at byte %d", e.Offset)
	}
	return err
}
