package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/rs/zerolog"
)

// Service authenticates requests and users. Its methods are safe for concurrent use.
type Service struct {
	store     *store.Store
	log       zerolog.Logger
	admin     [32]byte // SHA-256 of the manager's own token
	passwords passwords
	claim     claim
	uses      tokenUses
	rights    rights
}

// New returns a Service. adminToken is the manager's own bearer token, which has the
// role api.SuperAdmin. memory is how many KiB the hash of a new password takes; 0 means 64 MiB.
func New(st *store.Store, log zerolog.Logger, adminToken string, memory uint32) *Service {
	memory = cmp.Or(memory, argonMemory)
	return &Service{store: st, log: log, admin: sha256.Sum256([]byte(adminToken)), passwords: passwords{store: st, memory: memory, none: noHash(memory)}}
}

// Bearer returns the identity of a request's bearer token. If the token is missing,
// unknown, revoked or expired, the error wraps store.ErrNotFound and says which.
func (s *Service) Bearer(r *http.Request) (Identity, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return Identity{}, tokenError("give a token: Authorization: Bearer TOKEN")
	}
	given := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(given[:], s.admin[:]) == 1 {
		return Identity{Name: "admin", Role: api.SuperAdmin, admin: true}, nil
	}
	return s.byToken(r.Context(), secret.Hash(token))
}

// byToken returns the identity of a token, by its hash, as Bearer does.
func (s *Service) byToken(ctx context.Context, hash string) (Identity, error) {
	t, err := s.store.APIToken(ctx, hash)
	if errors.Is(err, store.ErrNotFound) {
		return Identity{}, tokenError("the token is not known, or was revoked")
	}
	if err != nil {
		return Identity{}, err
	}
	now := time.Now()
	if !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt) {
		return Identity{}, tokenError("the token expired at " + t.ExpiresAt.Format(time.RFC3339) + "; create another")
	}
	if s.uses.due(t, now) {
		if err := s.store.RecordTokenUse(ctx, t.ID, now); err != nil { // no reason to refuse the request
			s.log.Error().Err(err).Str("token", t.Name).Msg("use of a token not recorded")
		}
	}
	return Identity{Name: t.Name, Role: api.Role(t.Role), Groups: t.Groups, token: t.ID, tokenHash: hash, until: t.ExpiresAt}, nil
}

// tokenError is the reason why a token is not accepted. It is a store.ErrNotFound.
type tokenError string

func (e tokenError) Error() string        { return string(e) }
func (e tokenError) Is(target error) bool { return target == store.ErrNotFound }

// SessionIdentity returns the identity of a session by its secret, or ErrNoSession.
func (s *Service) SessionIdentity(ctx context.Context, sessionSecret string) (Identity, error) {
	return s.bySession(ctx, secret.Hash(sessionSecret))
}

func (s *Service) bySession(ctx context.Context, hash string) (Identity, error) {
	u, ends, err := s.store.SessionUser(ctx, hash, time.Now())
	if err != nil {
		return Identity{}, err
	}
	i := FromUser(u)
	i.session, i.until = hash, ends
	return i, nil
}

// InvalidError is a mistake of the person who adds or changes a user.
type InvalidError struct{ Err error }

// Error returns the mistake.
func (e *InvalidError) Error() string { return e.Err.Error() }

// Unwrap returns the mistake.
func (e *InvalidError) Unwrap() error { return e.Err }

// CheckUser returns an *InvalidError unless a user or token can have the name and role.
func CheckUser(name, role string) error {
	if err := api.CheckUserName(name); err != nil {
		return &InvalidError{err}
	}
	return CheckRole(role)
}

// CheckRole returns an *InvalidError unless role is one of api.Roles.
func CheckRole(role string) error {
	if err := api.CheckRole(role); err != nil {
		return &InvalidError{err}
	}
	return nil
}
