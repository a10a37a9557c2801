package identity

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// claim is the link by which the first super admin chooses a name and a password.
type claim struct {
	using sync.Mutex // held while an attempt uses the claim

	mu   sync.Mutex
	hash string // of its secret; "": there is none
}

func (c *claim) set(hash string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hash = hash
}

func (c *claim) matches(claimSecret string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return secret.Matches(c.hash, claimSecret)
}

// NewClaim returns the secret of a link by which the first super admin chooses a name
// and a password; "" if a super admin exists. The previous link ends.
func (s *Service) NewClaim(ctx context.Context) (string, error) {
	open, err := s.ClaimOpen(ctx)
	if err != nil || !open {
		return "", err
	}
	claimSecret := secret.New()
	s.claim.set(secret.Hash(claimSecret))
	return claimSecret, nil
}

// ClaimOpen reports whether the manager still waits for its first super admin.
func (s *Service) ClaimOpen(ctx context.Context) (bool, error) {
	has, err := s.store.HasSuperAdmin(ctx)
	return !has, err
}

// ErrClaim means that a claim was used, or never existed.
var ErrClaim = errors.New("this link was used or is wrong: sign in, or, if there is no administrator yet, restart the manager for a new link")

// Claim adds the first super admin. The secret works once. An attempt that is refused,
// for instance for its password, does not use it up.
func (s *Service) Claim(ctx context.Context, claimSecret, name, password string) error {
	// Only people with the secret get past here, and make the manager hash.
	if !s.claim.matches(claimSecret) {
		return ErrClaim
	}
	s.claim.using.Lock()
	defer s.claim.using.Unlock()
	if !s.claim.matches(claimSecret) {
		return ErrClaim
	}
	u := store.User{Name: name, Role: string(api.SuperAdmin), Groups: []string{api.AllGroups}, CreatedAt: time.Now().UTC()}
	if err := CheckUser(u.Name, u.Role); err != nil {
		return err
	}
	var err error
	if u.Hash, err = s.passwords.hash(ctx, "claim", password); err != nil {
		return err
	}
	err = s.store.AddFirstSuperAdmin(ctx, u, store.NewAuditEntry(u.CreatedAt, "claim", "user.create", u.Name, map[string]any{"role": u.Role, "groups": u.Groups}))
	if err != nil && !errors.Is(err, store.ErrClaimed) {
		return err
	}
	s.claim.set("")
	if err != nil { // another super admin was added meanwhile
		return ErrClaim
	}
	return nil
}

// Mistake reports whether a person can correct an error of Claim. Any other error is
// the manager's, and belongs in its log.
func Mistake(err error) bool {
	return errors.As(err, new(*InvalidError)) || errors.Is(err, ErrClaim) || errors.Is(err, store.ErrExists)
}
