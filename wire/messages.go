package wire

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Auth is the first frame of a session, from node to manager. It has a registration
// token, or the credentials that a registration returned.
type Auth struct {
	RegistrationToken string `json:"registration_token,omitempty"`
	NodeID            string `json:"node_id,omitempty"`
	NodeSecret        string `json:"node_secret,omitempty"`
	SoftwareVersion   string `json:"software_version"`
	DeviceType        string `json:"device_type"`
	ProtocolVersion   int    `json:"protocol_version"`
	// Probe asks the manager to check the credentials and to keep the connection, but to
	// open no session. A manager that does not know probes ignores it, and opens a session
	// in place of the node's own. So a node sends it only where the WebSocket's answer had
	// FeatureProbe in FeaturesHeader, and never with a registration token.
	Probe bool `json:"probe,omitempty"`
	// Features are the actions that not every node knows: FeatureWithdraw. Earlier agents send
	// none.
	Features []string `json:"features,omitempty"`
	// ManifestSHA256 is that of the manifest of the running version, in lower-case hex; ""
	// if the node does not know it, as of a version that an earlier agent staged.
	ManifestSHA256 string `json:"manifest_sha256,omitempty"`
	// Actions are the names of the author's actions that the program handles: see
	// ActionNames. Earlier agents, and programs without any, send none.
	Actions []string `json:"actions,omitempty"`
}

// RegisterAck answers an Auth with a token, and authenticates the session. The node
// must keep both values.
type RegisterAck struct {
	NodeID     string   `json:"node_id"`
	NodeSecret string   `json:"node_secret"`
	Features   []string `json:"features,omitempty"`
}

// AuthOK answers an Auth with credentials. Probe is that of the Auth: no session was
// opened.
type AuthOK struct {
	Features []string `json:"features,omitempty"`
	Probe    bool     `json:"probe,omitempty"`
}

// AuthError refuses an Auth. Encode writes its message at the top level of the frame;
// Decode also accepts it in the payload.
type AuthError struct {
	Message string `json:"message"`
}

// Health is the node's regular report, sent every HealthInterval.
type Health struct {
	Status       string   `json:"status"` // StatusOK or StatusDegraded
	Version      string   `json:"version"`
	UptimeSecs   int64    `json:"uptime_secs"`
	Capabilities []string `json:"capabilities"`
	Upgrade      *Upgrade `json:"upgrade,omitempty"`
	// UpgradeUnavailable is the reason why the node does not offer CapabilityUpgrade,
	// with the remedy. Older agents omit it if their configuration disables upgrades.
	UpgradeUnavailable string `json:"upgrade_unavailable,omitempty"`
	// Warnings are what the node found wrong at its start and could not repair, each with
	// the remedy: ignored keys, modes and owners; and that the service could not do what it
	// does once its version is kept. Status does not depend on them. Older agents send none.
	Warnings []string `json:"warnings,omitempty"`
	// Trial is how far the trial of the running version is: TrialOpen, TrialGuard or
	// TrialUnproven; "" without a trial, and of an earlier agent. TrialState is for readers.
	Trial string `json:"trial,omitempty"`
	// Hold is what the node waits for: an unproven version for the proof of its link, a
	// download for its host; nil: for nothing. Earlier agents do not send that of a download.
	Hold *Hold `json:"hold,omitempty"`
	// ManifestSHA256 is as in Auth.
	ManifestSHA256 string `json:"manifest_sha256,omitempty"`
}

// Hold is what a node waits for.
type Hold struct {
	Reason string    `json:"reason"` // a noun phrase for people
	Since  time.Time `json:"since,omitzero"`
	// Until is when the node gives up if nothing changes; zero: never.
	Until time.Time `json:"until,omitzero"`
}

// TrialState returns Trial. Of an earlier agent, which sends none, it is TrialOpen while
// the status of its upgrades is StatusPendingHealth.
func (h *Health) TrialState() string {
	if h.Trial == "" && h.Upgrade != nil && h.Upgrade.Status == StatusPendingHealth {
		return TrialOpen
	}
	return h.Trial
}

// Upgrade is the state of the node's upgrades. Health has it only with
// CapabilityUpgrade.
type Upgrade struct {
	Status          string    `json:"status"` // a state.Status
	CurrentVersion  string    `json:"current_version"`
	PreviousVersion string    `json:"previous_version,omitempty"`
	TargetVersion   string    `json:"target_version,omitempty"`
	BootAttempts    int       `json:"boot_attempts"`
	Channels        []string  `json:"channels"`
	Progress        *Progress `json:"progress,omitempty"`
}

// Progress is the progress of staging, in bytes.
type Progress struct {
	Phase      string `json:"phase"` // verify, download, extract or check
	BytesDone  int64  `json:"bytes_done"`
	BytesTotal int64  `json:"bytes_total"` // 0 means unknown
}

// Command requests an action from the node. The manager chooses the id.
type Command struct {
	CommandID string `json:"command_id"`
	Action    Action `json:"action"`
}

// Action is the action of a Command. The fields after Type belong to ActionUpgrade, but
// CommandID to ActionWithdraw and Params to an author's action; Raw is the complete object.
type Action struct {
	Type       string `json:"type"`
	Version    string `json:"version,omitempty"`
	Channel    string `json:"channel,omitempty"`
	TargetArch string `json:"target_arch,omitempty"`
	Variant    string `json:"variant,omitempty"`
	// Repair is whether an operator declared the version the repair of a node whose own
	// check fails. Earlier agents ignore it; they do not look at the check.
	Repair bool `json:"repair,omitempty"`
	// ManifestSHA256, if set, is the SHA-256 of the only manifest.json that the command
	// accepts, in lower-case hex. It can only refuse a release. Earlier agents ignore it.
	ManifestSHA256 string `json:"manifest_sha256,omitempty"`
	// CommandID is the id of the upgrade command that ActionWithdraw withdraws.
	CommandID string `json:"command_id,omitempty"`
	// Params are the parameters of an author's action, any JSON value; nil: none. Decode does
	// not bound them, so that the node can refuse those of more than MaxParams bytes.
	Params json.RawMessage `json:"params,omitempty"`
	Raw    json.RawMessage `json:"-"`
}

// UnmarshalJSON reads all fields of an upgrade or a withdrawal, and only the type and the
// parameters of any other action, whose handler reads Params or Raw.
func (a *Action) UnmarshalJSON(b []byte) error {
	var t struct {
		Type   string          `json:"type"`
		Params json.RawMessage `json:"params"`
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	if t.Type == ActionUpgrade || t.Type == ActionWithdraw {
		type plain Action
		if err := json.Unmarshal(b, (*plain)(a)); err != nil {
			return err
		}
		a.Params = nil
	} else if !isNull(t.Params) {
		a.Params = t.Params
	}
	a.Type, a.Raw = t.Type, append(json.RawMessage(nil), b...)
	// A longer text matches nothing on a node. It is shortened and not refused, so that
	// the command still gets its answer: a refusal that names it.
	for _, s := range []*string{&a.Version, &a.Channel, &a.TargetArch, &a.Variant, &a.ManifestSHA256, &a.CommandID} {
		*s = release.Foreign(*s, maxActionText)
	}
	return nil
}

// maxActionText bounds the texts of an Action, in bytes. It is above the limit of each
// of them, so that shortening makes none of them valid.
const maxActionText = 2 * release.MaxNameLen

// CommandAck is the only answer to a command. The node sends it when the command has
// ended; for an upgrade, when the release is staged or refused.
type CommandAck struct {
	CommandID string       `json:"command_id"`
	Success   bool         `json:"success"`
	Data      *AckData     `json:"data,omitempty"`
	Error     string       `json:"error,omitempty"`
	ErrorCode release.Code `json:"error_code,omitempty"`
	// Result is what the handler of an author's action returned, any JSON value of at most
	// MaxResult bytes; nil: nothing. Its texts are the author's: unlike others, they may have
	// line breaks and control characters. Earlier agents send none.
	Result json.RawMessage `json:"result,omitempty"`
}

// AckData is the result of a successful upgrade command.
type AckData struct {
	Status      string `json:"status"` // "staged", "staged_manual" or "current"
	FromVersion string `json:"from_version"`
	ToVersion   string `json:"to_version"`
	Channel     string `json:"channel"`
	Variant     string `json:"variant"`
	Arch        string `json:"arch"`
}

// Event reports what happened on the node. It is delivered at least once; a manager
// drops an EventID that it has received from that node before.
type Event struct {
	EventID  string           `json:"event_id,omitempty"`
	Severity release.Severity `json:"severity"`
	Category string           `json:"category"`
	Message  string           `json:"message"`
	Details  Details          `json:"details"`
}

// Details are the fields of an event for programs.
type Details struct {
	ErrorCode    release.Code `json:"error_code,omitempty"`
	FromVersion  string       `json:"from_version,omitempty"`
	ToVersion    string       `json:"to_version,omitempty"`
	CommandID    string       `json:"command_id,omitempty"`
	Reason       string       `json:"reason,omitempty"`
	BootAttempts int          `json:"boot_attempts,omitempty"`
	// FailedStarts has the reason of each failed start of a version that was rolled
	// back, in order; "" if the node does not know it.
	FailedStarts []string `json:"failed_starts,omitempty"`
	// Trial is what the trial of a version found that was rolled back.
	Trial *Trial `json:"trial,omitempty"`
	// Dependency is whether, after a rollback, the check of the previous version failed as
	// well: probably what the service depends on is down, and not the version at fault.
	Dependency bool `json:"dependency,omitempty"`
	// Journal has the last lines of a version that was rolled back, oldest first: at
	// most MaxJournal lines of at most MaxText bytes.
	Journal []string `json:"journal,omitempty"`
}

// Trial is what the trial of a version found, besides the cause of each failed start.
type Trial struct {
	// Contradictions is in how many rounds the probe of the previous version reached the
	// manager between two failures of the new one.
	Contradictions int `json:"contradictions,omitempty"`
	// Link is what the version's own last attempt found of its link, in words; Probe is what
	// the previous version's probe found in the same round, and ProbeBefore what it found
	// before the swap.
	Link        string `json:"link,omitempty"`
	Probe       string `json:"probe,omitempty"`
	ProbeBefore string `json:"probe_before,omitempty"`
	// Check and Dependency are what the last round of checks of an attached service found.
	Check      string `json:"check,omitempty"`
	Dependency string `json:"dependency,omitempty"`
	// NotCounted is how each start ended that did not count against the version, oldest
	// first. More than MaxStarts are shortened to the last ones.
	NotCounted []string `json:"not_counted,omitempty"`
}

// UnmarshalJSON accepts any value: what another program means by "trial" costs no event.
func (t *Trial) UnmarshalJSON(b []byte) error {
	type plain Trial
	var p plain
	if json.Unmarshal(b, &p) == nil {
		*t = Trial(p)
	}
	return nil
}

// EventAck lists the events that the manager has stored.
type EventAck struct {
	EventIDs []string `json:"event_ids"`
}

// ConfigResponse answers ActionGetConfig with the node's configuration without secrets.
type ConfigResponse struct {
	CommandID string          `json:"command_id,omitempty"`
	Config    json.RawMessage `json:"config"`
}

// Ping and Pong are the keep-alive messages of the protocol.
type (
	Ping struct{}
	Pong struct{}
)

// Unknown is a frame of an unknown type.
type Unknown struct{ Type string }

// UnmarshalJSON accepts any payload.
func (*Unknown) UnmarshalJSON([]byte) error { return nil }

// UnmarshalJSON accepts any payload.
func (*Ping) UnmarshalJSON([]byte) error { return nil }

// UnmarshalJSON accepts any payload.
func (*Pong) UnmarshalJSON([]byte) error { return nil }

func (*Auth) wireType() string           { return "auth" }
func (*RegisterAck) wireType() string    { return "register_ack" }
func (*AuthOK) wireType() string         { return "auth_ok" }
func (*AuthError) wireType() string      { return "auth_error" }
func (*Health) wireType() string         { return "health" }
func (*Command) wireType() string        { return "command" }
func (*CommandAck) wireType() string     { return "command_ack" }
func (*Event) wireType() string          { return "event" }
func (*EventAck) wireType() string       { return "event_ack" }
func (*ConfigResponse) wireType() string { return "config_response" }
func (*Ping) wireType() string           { return "ping" }
func (*Pong) wireType() string           { return "pong" }
func (u *Unknown) wireType() string      { return u.Type }

func (a *Auth) check() error {
	return firstError(
		checkLen("registration_token", a.RegistrationToken, 1024),
		checkLen("node_id", a.NodeID, MaxID),
		checkLen("node_secret", a.NodeSecret, 1024),
		checkLen("software_version", a.SoftwareVersion, release.MaxVersionLen),
		checkLen("device_type", a.DeviceType, MaxID))
}

func (r *RegisterAck) check() error {
	if err := checkID("node_id", r.NodeID); err != nil {
		return err
	}
	return checkID("node_secret", r.NodeSecret)
}

func (h *Health) check() error {
	return firstError(
		checkLen("version", h.Version, release.MaxVersionLen),
		checkLen("upgrade_unavailable", h.UpgradeUnavailable, MaxText))
}

func (e *EventAck) check() error {
	if len(e.EventIDs) > MaxEventIDs {
		return fmt.Errorf("%d event ids, more than %d", len(e.EventIDs), MaxEventIDs)
	}
	return nil
}

func (c *Command) check() error {
	return firstError(
		checkID("command_id", c.CommandID),
		checkID("action type", c.Action.Type))
}

func (a *CommandAck) check() error {
	return firstError(
		checkID("command_id", a.CommandID),
		checkLen("error", a.Error, MaxText),
		checkLen("error_code", string(a.ErrorCode), MaxID),
		checkLen("result", string(a.Result), MaxResult))
}

func (e *Event) check() error {
	if e.EventID != "" {
		if err := checkID("event_id", e.EventID); err != nil {
			return err
		}
	}
	if n := len(e.Details.Journal); n > MaxJournal {
		return fmt.Errorf("journal has %d lines, more than %d", n, MaxJournal)
	}
	for _, line := range e.Details.Journal {
		if err := checkLen("line of the journal", line, MaxText); err != nil {
			return err
		}
	}
	if n := len(e.Details.FailedStarts); n > MaxStarts {
		return fmt.Errorf("failed_starts has %d entries, more than %d", n, MaxStarts)
	}
	for _, cause := range e.Details.FailedStarts {
		if err := checkLen("entry of failed_starts", cause, MaxText); err != nil {
			return err
		}
	}
	return firstError(
		checkLen("message", e.Message, MaxText),
		checkLen("reason", e.Details.Reason, MaxText),
		checkLen("severity", string(e.Severity), MaxID),
		checkLen("category", e.Category, MaxID))
}
