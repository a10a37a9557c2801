package wire

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Bounds of an author's actions.
const (
	MaxActions    = 64       // names in Auth.Actions
	MaxActionName = 64       // bytes of each
	MaxParams     = 64 << 10 // bytes of Action.Params
	MaxResult     = 64 << 10 // bytes of CommandAck.Result

	// Error codes of an answer to an author's command, besides UnknownAction and ActionFailed.
	ActionTimeout     = "action_timeout"     // the handler did not end within its limit
	ActionInterrupted = "action_interrupted" // the process ended while the handler ran
	ActionBusy        = "action_busy"        // too many commands wait, or an abandoned handler still runs
	ParamsTooLarge    = "params_too_large"   // Action.Params has more than MaxParams bytes
)

// reservedPrefix begins the names of the agent's own actions, also of those to come.
const reservedPrefix = "upgrade_"

// CheckActionName returns an error unless name can be the name of an author's action: a
// lower-case letter, then at most 63 lower-case letters, digits and underscores, and not
// reserved. Reserved are get_config and every name that begins with upgrade_.
func CheckActionName(name string) error {
	if len(name) > MaxActionName {
		return fmt.Errorf("the action %.80q has %d bytes, more than %d", name, len(name), MaxActionName)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return fmt.Errorf("the action %.80q is not a lower-case letter followed by lower-case letters, digits and underscores", name)
		}
	}
	switch {
	case name == "":
		return fmt.Errorf("the name of an action is empty")
	case name == ActionGetConfig || strings.HasPrefix(name, reservedPrefix):
		return fmt.Errorf("the action %q is reserved for the agent: %s, and every name that begins with %s", name, ActionGetConfig, reservedPrefix)
	}
	return nil
}

// ActionNames returns the names of Auth.Actions that can be those of an author's actions, each
// once. A later version of the node may know others.
func (a *Auth) ActionNames() []string {
	known := make(map[string]bool)
	var names []string
	for _, name := range a.Actions {
		if !known[name] && CheckActionName(name) == nil {
			known[name] = true
			names = append(names, name)
		}
	}
	return names
}

// isNull reports whether b is no value: absent, or null.
func isNull(b json.RawMessage) bool { return len(b) == 0 || string(b) == "null" }
