package systemd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// condition is one Condition...= or Assert...= of a unit, as systemd has it: with the
// specifiers replaced, and from files that only root can read.
type condition struct {
	kind             string // like "ConditionPathExists"
	trigger, negated bool
	param            string
}

// addHidden adds to p what systemd knows of the unit and systemctl does not print:
// conditions, and credentials. It returns an error if systemd did not answer. A machine
// without busctl is none.
func addHidden(ctx context.Context, unit string, p map[string]string) error {
	var failed error
	for of, names := range map[string][]string{"Unit": {"Conditions", "Asserts"}, "Service": {"LoadCredential", "LoadCredentialEncrypted"}} {
		args := append([]string{"--json=short", "get-property", "org.freedesktop.systemd1", objectPath(unit), "org.freedesktop.systemd1." + of}, names...)
		out, err := output(ctx, "busctl", args...)
		if err != nil {
			if !errors.Is(err, exec.ErrNotFound) {
				failed = err
			}
			continue
		}
		for i, line := range bytes.Split(bytes.TrimSpace(out), []byte("\n")) {
			if i < len(names) {
				p[names[i]] = string(line)
			}
		}
	}
	return failed
}

// objectPath returns the path of a unit on the bus (systemd's bus_label_escape).
func objectPath(unit string) string {
	var b strings.Builder
	b.WriteString("/org/freedesktop/systemd1/unit/")
	for i := range len(unit) {
		c := unit[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// conditions returns the conditions among the properties that addHidden added.
func conditions(p map[string]string) (out []condition) {
	for _, name := range []string{"Conditions", "Asserts"} {
		var v struct {
			Data [][]any `json:"data"` // kind, trigger, negated, parameter, state
		}
		if json.Unmarshal([]byte(p[name]), &v) != nil {
			continue
		}
		for _, f := range v.Data {
			if len(f) < 4 {
				continue
			}
			var c condition
			var ok [4]bool
			c.kind, ok[0] = f[0].(string)
			c.trigger, ok[1] = f[1].(bool)
			c.negated, ok[2] = f[2].(bool)
			c.param, ok[3] = f[3].(string)
			if ok == [4]bool{true, true, true, true} {
				out = append(out, c)
			}
		}
	}
	return out
}

// credentials returns the paths of LoadCredential= or LoadCredentialEncrypted=, which
// addHidden added.
func credentials(p map[string]string, name string) (out []string) {
	var v struct {
		Data [][]string `json:"data"` // id, path
	}
	if json.Unmarshal([]byte(p[name]), &v) != nil {
		return nil
	}
	for _, f := range v.Data {
		if len(f) == 2 {
			out = append(out, f[1])
		}
	}
	return out
}
