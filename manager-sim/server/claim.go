package server

import (
	"context"
	"crypto/subtle"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// NewClaim returns the secret of a link by which the first super admin chooses
// a name and a password; "" if there is a super admin already. It ends the claim
// before.
func (s *Server) NewClaim(ctx context.Context) (string, error) {
	open, err := s.ClaimOpen(ctx)
	if err != nil || !open {
		return "", err
	}
	secret := NewSecret()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claim = Hash(secret)
	return secret, nil
}

// ClaimOpen reports whether the manager still waits for its first super admin.
func (s *Server) ClaimOpen(ctx context.Context) (bool, error) {
	has, err := s.Store.HasSuperAdmin(ctx)
	return !has, err
}

// ErrClaim says that a claim is used up, or never was.
var ErrClaim = errors.New("this link was used or is wrong: sign in, or, if there is no administrator yet, restart the manager for a new link")

// Claim makes the first super admin. The secret of a claim makes one; an attempt
// that is refused, for its password say, does not use it up.
func (s *Server) Claim(ctx context.Context, secret, name, password string) error {
	// Only whoever has the secret waits here, and hashes.
	if !s.isClaim(secret) {
		return ErrClaim
	}
	s.claiming.Lock()
	defer s.claiming.Unlock()
	if !s.isClaim(secret) {
		return ErrClaim
	}
	u := store.User{Name: name, Role: string(api.SuperAdmin), Groups: []string{api.AllGroups}, CreatedAt: time.Now().UTC()}
	if err := checkUser(u); err != nil {
		return err
	}
	var err error
	if u.Hash, err = s.newHash(ctx, "claim", password); err != nil {
		return err
	}
	err = s.Store.AddFirstSuperAdmin(ctx, u, audit(u.CreatedAt, "claim", "user.create", u.Name, map[string]any{"role": u.Role, "groups": u.Groups}))
	if err != nil && !errors.Is(err, store.ErrClaimed) {
		return err
	}
	s.mu.Lock()
	s.claim = ""
	s.mu.Unlock()
	if err != nil { // another one was made meanwhile
		return ErrClaim
	}
	return nil
}

func (s *Server) isClaim(secret string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claim != "" && subtle.ConstantTimeCompare([]byte(s.claim), []byte(Hash(secret))) == 1
}

// Mistake reports whether an error of Claim is one that a person can correct. Any
// other is the manager's, and belongs into its log.
func Mistake(err error) bool {
	return errors.As(err, new(badUser)) || errors.Is(err, ErrClaim) || errors.Is(err, store.ErrExists)
}
