package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// Identity is who makes a request.
type Identity struct {
	Name   string
	Role   api.Role
	Groups []string // ids; AllGroups: all

	// What the identity comes from, for as long as that holds. All are empty if the
	// program itself made it up, with As.
	session          string // hash of a session
	token, tokenHash string // a token's id and hash
	fixed            bool   // AdminToken
	until            time.Time
	password         string // hash of the user's; only present sets it
}

// maker is a store.Token's CreatedBy.
func (i Identity) maker() string {
	switch {
	case i.fixed:
		return store.ByManager
	case i.token != "":
		return store.ByToken(i.token)
	}
	return i.Name
}

// May reports whether the role is at least least.
func (i Identity) May(least api.Role) bool {
	return i.Role.Includes(least)
}

// In reports whether the identity's role is for the group.
func (i Identity) In(groupID string) bool {
	return i.Role == api.SuperAdmin || slices.Contains(i.Groups, api.AllGroups) || groupID != "" && slices.Contains(i.Groups, groupID)
}

// scope is the groups to list, or nil for all.
func (i Identity) scope() []string {
	if i.In("") {
		return nil
	}
	return append([]string{}, i.Groups...)
}

type identityKey struct{}

// As returns a context whose requests are made by i. It is for package web,
// which calls the API in its own process.
func As(ctx context.Context, i Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, i)
}

// who returns the identity of a request that auth let through.
func who(r *http.Request) Identity {
	i, _ := r.Context().Value(identityKey{}).(Identity)
	return i
}

// auth lets requests through whose identity may do least.
func (s *Server) auth(least api.Role, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		i, ok := r.Context().Value(identityKey{}).(Identity)
		if !ok {
			var err error
			i, err = s.bearer(r)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				s.storeFailed(w, err)
				return
			}
			if err != nil {
				w.Header().Set("WWW-Authenticate", "Bearer")
				fail(w, http.StatusUnauthorized, api.CodeUnauthorized, "%v", err)
				return
			}
			r = r.WithContext(As(r.Context(), i))
		}
		if !i.May(least) {
			s.denied(w, r, fmt.Sprintf("this takes the role %s; %s has %s", least, i.Name, i.Role))
			return
		}
		h(w, r)
	}
}

// denied answers what the identity may not do, and records it.
func (s *Server) denied(w http.ResponseWriter, r *http.Request, why string) {
	s.metrics.denied.Inc()
	err := s.Store.AddAudit(r.Context(), audit(time.Now().UTC(), who(r).Name, "denied", r.Method+" "+r.URL.Path, map[string]any{"reason": why}))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	fail(w, http.StatusForbidden, api.CodeForbidden, "%s", why)
}

// inScope answers, with false, a request about something in a group that the
// identity has no role for.
func (s *Server) inScope(w http.ResponseWriter, r *http.Request, groupID string) bool {
	if who(r).In(groupID) {
		return true
	}
	s.denied(w, r, fmt.Sprintf("%s has no role for this group", who(r).Name))
	return false
}

// bearer finds the identity behind a bearer token.
func (s *Server) bearer(r *http.Request) (Identity, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return Identity{}, refusedToken("give a token: Authorization: Bearer TOKEN")
	}
	given := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(given[:], s.token[:]) == 1 {
		return Identity{Name: "admin", Role: api.SuperAdmin, fixed: true}, nil
	}
	return s.tokenIdentity(r.Context(), Hash(token))
}

// tokenIdentity returns what a token may, by its hash. The error wraps
// store.ErrNotFound if there is none, or it has expired.
func (s *Server) tokenIdentity(ctx context.Context, hash string) (Identity, error) {
	t, err := s.Store.APIToken(ctx, hash)
	if errors.Is(err, store.ErrNotFound) {
		return Identity{}, refusedToken("the token is not known, or was revoked")
	}
	if err != nil {
		return Identity{}, err
	}
	now := time.Now()
	if !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt) {
		return Identity{}, refusedToken("the token expired at " + t.ExpiresAt.Format(time.RFC3339) + "; create another")
	}
	s.tokenUsed(ctx, t, now)
	return Identity{Name: t.Name, Role: api.Role(t.Role), Groups: t.Groups, token: t.ID, tokenHash: hash, until: t.ExpiresAt}, nil
}

// refusedToken says why a token is none.
type refusedToken string

func (e refusedToken) Error() string        { return string(e) }
func (e refusedToken) Is(target error) bool { return target == store.ErrNotFound }

// IdentityOf is a user's identity.
func IdentityOf(u store.User) Identity {
	return Identity{Name: u.Name, Role: api.Role(u.Role), Groups: u.Groups}
}
