package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
)

// Bounds of commands to an author's actions.
const (
	MaxParams         = 64 << 10 // bytes of ActionRequest.Params as compact JSON, in which <, > and & have six bytes each
	MaxActionBody     = 128 << 10
	MaxOpenActions    = 16  // that one node has not answered
	KeptActions       = 100 // the newest that are kept of a node
	DefaultActionLife = 24 * time.Hour
)

// Codes of a Problem that refuses a command to an author's action, besides CodeRemoved and
// CodeDuplicateIdentity.
const (
	CodeActionNotAnnounced = "action_not_announced" // the node does not handle an action of this name
	CodeParamsTooLarge     = "params_too_large"     // also the error_code of a node's answer
	CodeTooManyCommands    = "too_many_commands"    // MaxOpenActions are open
)

// States of an Action.
const (
	ActionPending   = "pending"   // to be sent
	ActionSent      = "sent"      // sent, and to be sent again until the node answers
	ActionEnded     = "ended"     // the node answered
	ActionWithdrawn = "withdrawn" // never sent
	ActionExpired   = "expired"   // not answered in its lifetime; a late answer still counts
)

// Action is a command to an author's action: one that the service on the node, not its agent,
// carries out. No answer of the API has its parameters, which may have secrets.
type Action struct {
	ID          string    `json:"command_id"`
	NodeID      string    `json:"node_id"`
	Action      string    `json:"action"`
	ParamsBytes int       `json:"params_bytes"` // 0: none
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at"` // later if no manager runs meanwhile
	RequestedBy string    `json:"requested_by"`
	State       string    `json:"state" jsonschema:"enum=pending,enum=sent,enum=ended,enum=withdrawn,enum=expired"`
	// WithdrawnBy is who withdrew it, and WithdrawReason why: "manager" and rights if its
	// requester lost the right before it was sent.
	WithdrawnBy    string    `json:"withdrawn_by,omitempty"`
	WithdrawReason string    `json:"withdraw_reason,omitempty"`
	SentAt         time.Time `json:"sent_at,omitzero"` // the last time
	AnsweredAt     time.Time `json:"answered_at,omitzero"`
	Success        bool      `json:"success"`
	ErrorCode      string    `json:"error_code,omitempty"`
	Error          string    `json:"error,omitempty"`
	// Result is what the service returned, any JSON value of at most 64 KiB. Its texts are the
	// author's, and may have control characters.
	Result json.RawMessage `json:"result,omitempty"`
}

// Over reports whether nothing more is expected of the command.
func (a Action) Over() bool { return a.State != ActionPending && a.State != ActionSent }

// ResultText returns the result with one value a line. Every character that a page or a
// terminal could act on, or that changes the direction of writing, is escaped as JSON allows,
// so that the text has the same value.
func (a Action) ResultText() string {
	var indented bytes.Buffer
	if json.Indent(&indented, a.Result, "", "  ") != nil {
		return strconv.QuoteToASCII(string(a.Result))
	}
	var b strings.Builder
	for _, r := range indented.String() {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xFFFF:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// ActionList is a page of commands to a node's actions.
type ActionList struct {
	Actions []Action `json:"actions"`
	Next    string   `json:"next,omitempty"`
	// Unreadable is how many entries were left out because the manager cannot read them.
	Unreadable int `json:"unreadable,omitempty"`
}

// ActionRequest is the body that sends a command to an action that the node announced.
type ActionRequest struct {
	Action string          `json:"action"`
	Params json.RawMessage `json:"params,omitempty"` // any JSON value
	// LifeSecs is how long it is sent to a node that has not answered: 60 to 2592000; default
	// 86400.
	LifeSecs int `json:"life_secs,omitempty"`
}

// SendAction sends a node a command to an author's action, and returns the command's id. A
// node that is offline gets it when it connects.
func (c *Client) SendAction(ctx context.Context, nodeID string, a ActionRequest, options ...Option) (commandID string, err error) {
	made, err := change[CommandCreated](ctx, c, http.MethodPost, nodePath(nodeID)+"/actions", a, options)
	return made.CommandID, err
}

// Actions returns a page of the commands to a node's actions, newest first. limit is at most
// MaxLimit; 0 means DefaultLimit.
func (c *Client) Actions(ctx context.Context, nodeID string, limit int, after string, options ...Option) (ActionList, error) {
	v := values{}
	v.number("limit", limit)
	v.text("after", after)
	return get[ActionList](ctx, c, nodePath(nodeID)+"/actions", url.Values(v), options)
}

// Action returns one of them.
func (c *Client) Action(ctx context.Context, nodeID, commandID string, options ...Option) (Action, error) {
	return get[Action](ctx, c, actionPath(nodeID, commandID), nil, options)
}

// WithdrawAction withdraws one that was never sent, and returns it. CodeNotNow means that it
// was sent, or is over.
func (c *Client) WithdrawAction(ctx context.Context, nodeID, commandID, reason string, options ...Option) (Action, error) {
	return change[Action](ctx, c, http.MethodPost, actionPath(nodeID, commandID)+"/withdraw", reasonBody(reason), options)
}

func actionPath(nodeID, commandID string) string {
	return nodePath(nodeID) + "/actions/" + url.PathEscape(commandID)
}
