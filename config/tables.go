package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// tables are the sections of Config.
var tables = []string{"service", "manager", "upgrade", "health"}

// FromTOML reads the tables [service], [manager], [upgrade] and [health] of a larger document,
// such as the file of a service that links the agent. It ignores all other tables; an unknown
// key in one of the four is an error. Config.Resolve then checks the values. service.install_root
// must be set, since no path is that of this document.
func FromTOML(doc []byte) (Config, error) {
	var c Config
	if len(doc) > MaxFile {
		return c, tooLong(doc)
	}
	err := decode(doc, &c)
	strict, ok := errors.AsType[*toml.StrictMissingError](err)
	if err != nil && !ok {
		return Config{}, fmt.Errorf("config: %w", explainTOML(err, string(doc)))
	}
	if !ok {
		return c, nil
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
	return c, nil
}

// FromJSON is FromTOML for the members of a JSON object. The keys are those of config.toml.
func FromJSON(doc []byte) (Config, error) {
	var c Config
	if len(doc) > MaxFile {
		return c, tooLong(doc)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc, &members); err != nil {
		return c, fmt.Errorf("config: it is no JSON object: %w", withoutValues(err))
	}
	var errs []error
	for _, t := range tables {
		text, ok := members[t]
		if !ok {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		into := map[string]any{"service": &c.Service, "manager": &c.Manager, "upgrade": &c.Upgrade, "health": &c.Health}[t]
		if err := d.Decode(into); err != nil {
			errs = append(errs, jsonError(t, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	return c, nil
}

func tooLong(doc []byte) error {
	return fmt.Errorf("config: the document has %d bytes; the limit is %d", len(doc), MaxFile)
}

// jsonError returns the error of the key of a table. It quotes no value.
func jsonError(table string, err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		key := table + "." + strings.Trim(name, `"`)
		return &Error{Key: key, Rule: "unknown key", text: fmt.Sprintf("config: unknown key %q", key)}
	}
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
