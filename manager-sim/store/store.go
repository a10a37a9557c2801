// Package store is what the simulated manager remembers: nodes, the commands
// it gave them, their events, and the audit trail. The store is the truth: a
// manager that is killed at any moment carries on from it.
//
// Audit entries are only ever added. Events are added too, and the oldest of a
// node that reports very many are deleted.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("not found")
	ErrDenied   = errors.New("denied")
)

// Node is a registered node.
type Node struct {
	ID           string
	DeviceType   string
	SecretHash   string // SHA-256 of its secret, hex
	Version      string // at its last authentication or health beat
	Capabilities []string
	Upgrade      json.RawMessage // of its last health beat; nil if it had none
	RegisteredAt time.Time
	LastSeen     time.Time
	GroupID      string        // "" for none
	Health       string        // of its last health beat: wire.StatusOK or wire.StatusDegraded; "" if it had none
	Unavailable  string        // why it offered no upgrades at its last health beat; "": not said
	Address      string        // from which it connected last
	Duplicate    api.Duplicate // zero: one device uses its identity
	RemovedAt    time.Time     // zero: it was not
}

// Outcome is what decides the state of a command: one event of it.
type Outcome struct {
	Code       string
	Message    string // at most maxOutcome characters of it
	ReceivedAt time.Time
}

// Command is one that was given to a node.
type Command struct {
	ID        string
	NodeID    string
	Version   string
	Channel   string
	Action    json.RawMessage // as it is sent
	CreatedAt time.Time
	SentAt    time.Time // the last time; zero: never
	AckedAt   time.Time // zero: not acknowledged
	Success   bool
	ErrorCode string
	Error     string
	Data      json.RawMessage
	Actor     string // who requested it; "" for a command of an earlier version
	// Replaces is the id of a command that AddCommand withdraws if it was not sent yet;
	// it is not stored.
	Replaces string
}

// API returns the command as the REST API shows it.
func (c Command) API() api.Command {
	return api.Command{ID: c.ID, NodeID: c.NodeID, Version: c.Version, Channel: c.Channel, Action: c.Action, CreatedAt: c.CreatedAt, SentAt: c.SentAt,
		AckedAt: c.AckedAt, Success: c.Success, ErrorCode: c.ErrorCode, Error: c.Error, Data: c.Data, Actor: c.Actor}
}

// EventFilter narrows Events; empty fields match all.
type EventFilter struct {
	NodeID, Severity, Category, CommandID string
	Search                                string   // in the message and the error code
	Groups                                []string // of their nodes; nil: all, and none
	From, To                              time.Time
	Page, PerPage                         int   // from 1; 1 to api.MaxEventsPerPage
	Before, After                         int64 // only events with a lower, or a higher Seq; 0: all
}

// AuditFilter narrows AuditLog; empty fields match all.
type AuditFilter struct {
	Actor, Action, Target string
	Before                int64 // only entries with a lower Seq; 0: all
	Limit                 int
}

// Store keeps it all. Its methods are safe for concurrent use; one that
// returns nil has made its change durable.
type Store interface {
	// AddToken makes a registration token valid, by its hash. Repeating it does
	// nothing.
	AddToken(ctx context.Context, hash string) error
	// Register adds a node if the token is valid, and ErrDenied otherwise. A
	// token serves any number of nodes.
	Register(ctx context.Context, tokenHash string, n Node) error
	// Node returns a node, or ErrNotFound.
	Node(ctx context.Context, id string) (Node, error)
	// Nodes returns all that were not removed, by id; RemovedNodes the others.
	Nodes(ctx context.Context) ([]Node, error)
	RemovedNodes(ctx context.Context) ([]Node, error)
	// RemoveNode revokes the secret of a node and takes it out of the lists. Its
	// history stays. It returns ErrNotFound for a node that is removed already.
	RemoveNode(ctx context.Context, id string, at time.Time, a api.AuditEntry) error
	// MarkDuplicate records that two devices use a node's identity, and reports
	// whether that is new; ClearDuplicate that an operator resolved it.
	MarkDuplicate(ctx context.Context, id string, d api.Duplicate) (bool, error)
	ClearDuplicate(ctx context.Context, id string, a api.AuditEntry) error
	// Came records that a node authenticated at a version from an address, Went that
	// its connection ended, Seen what its health beat says. Connections returns when
	// it came and went, newest first; the oldest of very many are forgotten.
	Came(ctx context.Context, id, version, address string, at time.Time) error
	Went(ctx context.Context, id string, at time.Time) error
	Seen(ctx context.Context, n Node) error
	Connections(ctx context.Context, nodeID string) ([]api.Connection, error)

	// AddCommand adds a command and its audit entry, or neither. It returns ErrConflict
	// if c.Replaces was sent or has ended.
	AddCommand(ctx context.Context, c Command, a api.AuditEntry) error
	// Sent records that a command was sent, again perhaps.
	Sent(ctx context.Context, id string, at time.Time) error
	// Acked records the outcome of a node's command. The first one counts: for a
	// repeated one, or a command that the node was never given, it reports false.
	Acked(ctx context.Context, c Command) (bool, error)
	// Commands returns a node's commands, newest first, at most limit; all if that
	// is below zero.
	Commands(ctx context.Context, nodeID string, limit int) ([]Command, error)

	// Command returns a command, or ErrNotFound.
	Command(ctx context.Context, id string) (Command, error)

	// AddGroup adds a group, or returns ErrExists; SetGroup moves a node into one
	// ("": out of any), or returns ErrNotFound. Both add their audit entry with it.
	AddGroup(ctx context.Context, g api.Group, a api.AuditEntry) error
	SetGroup(ctx context.Context, nodeID, groupID string, a api.AuditEntry) error
	// Groups returns all, by name; Group one, or ErrNotFound; GroupNodes its nodes, by id.
	Groups(ctx context.Context) ([]api.Group, error)
	Group(ctx context.Context, id string) (api.Group, error)
	GroupNodes(ctx context.Context, groupID string) ([]Node, error)
	// GroupMembers returns the ids of a group's nodes.
	GroupMembers(ctx context.Context, groupID string) (map[string]bool, error)

	// SaveRollout stores a rollout with the commands and audit entries of the same
	// transition, or none of it. ErrExists says that its group has an active one,
	// ErrConflict that r.Revision is not the stored one.
	SaveRollout(ctx context.Context, r Rollout, commands []Command, audits []api.AuditEntry) error
	// Rollout returns one, or ErrNotFound; Rollouts the newest first, of one group
	// or of all.
	Rollout(ctx context.Context, id string) (Rollout, error)
	Rollouts(ctx context.Context, groupID string, activeOnly bool, limit int) ([]Rollout, error)

	// AddEvent adds an event, unless the node's EventID is there already, and
	// reports whether it did. It sets e.Seq. Of a node that has more than its share
	// (EventsKept, EventBytesKept) it deletes the oldest events.
	AddEvent(ctx context.Context, e *api.Event) (bool, error)
	// Outcomes returns what decides the state of a command, oldest first: of very
	// many events the newest. With the command id "" it returns the rollbacks that no
	// command caused.
	Outcomes(ctx context.Context, nodeID, commandID string) ([]Outcome, error)
	// Events returns a page, newest first, and how many match in all, whatever
	// Before and After say.
	Events(ctx context.Context, f EventFilter) ([]api.Event, int, error)
	// AcceptNode adds a node with its own credentials, or returns ErrExists, or
	// ErrNotFound if there is no such group.
	AcceptNode(ctx context.Context, n Node, a api.AuditEntry) error

	// AddUser adds a user, or returns ErrExists; AddFirstSuperAdmin does so only
	// while there is no super admin, and returns ErrClaimed otherwise. RemoveUser
	// removes a user and all its sessions, UpdateUser changes one; they return
	// ErrNotFound, and ErrLastSuperAdmin if no super admin would be left. With a
	// super admin who is no longer one, the tokens that it created end.
	AddUser(ctx context.Context, u User, a api.AuditEntry) error
	AddFirstSuperAdmin(ctx context.Context, u User, a api.AuditEntry) error
	RemoveUser(ctx context.Context, name string, a api.AuditEntry) error
	UpdateUser(ctx context.Context, name string, c UserChange, a api.AuditEntry) (User, error)
	HasSuperAdmin(ctx context.Context) (bool, error)
	// User returns one, or ErrNotFound; Users all, by name.
	User(ctx context.Context, name string) (User, error)
	Users(ctx context.Context) ([]User, error)
	// AddSession adds a session, or returns ErrConflict if the user is gone or has
	// another password than PasswordHash. SessionUser returns whose it is and when
	// it ends, or ErrNotFound if there is none at now; EndSession ends it.
	// SignedInFrom reports whether the user signed in from a source, lately.
	AddSession(ctx context.Context, n Session, a api.AuditEntry) error
	SessionUser(ctx context.Context, hash string, now time.Time) (User, time.Time, error)
	EndSession(ctx context.Context, hash string) error
	SignedInFrom(ctx context.Context, user, source string, now time.Time) (bool, error)
	// AddAPIToken adds a program's token; APIToken finds one by the hash of its
	// secret, also one that has expired, or returns ErrNotFound. APITokens returns
	// all, newest first. RemoveAPIToken removes one and those that it created, or
	// returns ErrNotFound. UsedAPIToken records when one was used.
	AddAPIToken(ctx context.Context, t Token, a api.AuditEntry) error
	APIToken(ctx context.Context, hash string) (Token, error)
	APITokens(ctx context.Context) ([]Token, error)
	RemoveAPIToken(ctx context.Context, id string, a api.AuditEntry) error
	UsedAPIToken(ctx context.Context, id string, at time.Time) error

	// AddAudit adds an entry by itself: of what was refused, mostly.
	AddAudit(ctx context.Context, a api.AuditEntry) error
	// AuditLog returns entries, newest first, and how many match in all, whatever
	// Before says.
	AuditLog(ctx context.Context, f AuditFilter) ([]api.AuditEntry, int, error)

	// SetAnswer keeps the answer of a request that was made with a Once; Answer
	// returns what is known of one, or ErrNotFound.
	SetAnswer(ctx context.Context, key string, a Answer) error
	Answer(ctx context.Context, key string) (Answer, error)
	// Ping reports whether the database can be reached.
	Ping(ctx context.Context) error
	Close() error
}
