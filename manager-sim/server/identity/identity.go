// Package identity decides who makes a request and what they may do: bearer tokens,
// sessions, passwords, and the link for the first administrator.
//
// It keeps no secret in plain text. It hashes one password at a time, so that strangers
// cannot exhaust the memory, and limits attempts by source and by name, so that nobody
// can lock out a user who signs in from a known address. Rights that end, end within a
// moment for requests that are running, too.
//
// It knows nothing of nodes and rollouts.
package identity

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// Identity is who makes a request.
type Identity struct {
	Name   string
	Role   api.Role
	Groups []string // ids, or api.AllGroups

	// The source of the identity, by which its rights are checked again. All fields are
	// empty for an identity that the program made up with As.
	session          string // hash of a session
	token, tokenHash string // a token's id and hash
	admin            bool   // the manager's own token
	until            time.Time
	password         string    // hash of the user's; only current sets it
	created          time.Time // the user; zero: it is no user
}

// FromUser returns a user's identity.
func FromUser(u store.User) Identity {
	return Identity{Name: u.Name, Role: api.Role(u.Role), Groups: u.Groups, created: u.CreatedAt}
}

// Creator returns the store.Token.CreatedBy of tokens that the identity creates.
func (i Identity) Creator() string {
	switch {
	case i.admin:
		return store.ByManager
	case i.token != "":
		return store.ByToken(i.token)
	}
	return i.Name
}

// Key identifies the user or token for Service.May; "" for an identity that the program made
// up. A user who is removed, and added again, has another one.
func (i Identity) Key() string {
	switch {
	case i.session != "":
		return userKey(i.Name, i.created)
	case i.token == "" && !i.admin:
		return ""
	}
	return i.Creator()
}

// userKey is the Key of a user. No name has a space.
func userKey(name string, created time.Time) string {
	return fmt.Sprintf("user %s %d", name, created.UnixMilli())
}

// Session returns the hash of the session that the identity comes from; "": none.
func (i Identity) Session() string { return i.session }

// May reports whether the role includes the rights of least.
func (i Identity) May(least api.Role) bool { return i.Role.Includes(least) }

// In reports whether the role is for the group; "": for nodes without a group.
func (i Identity) In(groupID string) bool {
	return i.Role == api.SuperAdmin || slices.Contains(i.Groups, api.AllGroups) || groupID != "" && slices.Contains(i.Groups, groupID)
}

// Scope returns the groups that the role is for, or nil for all.
func (i Identity) Scope() []string {
	if i.In("") {
		return nil
	}
	return append([]string{}, i.Groups...)
}

type contextKey struct{}

// As returns a context whose requests are made by i. It is for package web, which
// calls the API in its own process.
func As(ctx context.Context, i Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, i)
}

// Of returns the identity of As, and whether there is one.
func Of(ctx context.Context) (Identity, bool) {
	i, ok := ctx.Value(contextKey{}).(Identity)
	return i, ok
}

// Unavailable reports whether an error of a Service is the trouble of the manager's
// database. It says nothing about the person.
func Unavailable(err error) bool { return store.Unavailable(err) }
