package identity

import (
	"context"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// SessionLife is how long a session lasts.
const SessionLife = 12 * time.Hour

// SignIn checks a password and returns the secret of a new session. source is the
// address of the person. Five failures in a minute lock the name out from that source,
// and the source for all names that never signed in from it.
func (s *Service) SignIn(ctx context.Context, source, name, password string) (string, error) {
	source = limit.SourceOf(source)
	if api.CheckUserName(name) != nil {
		name = "" // no user has it
	}
	now := time.Now()
	takeBack, leave, err := s.passwords.admitSignIn(ctx, now, source, name)
	if err != nil {
		return "", err
	}
	right, u, err := s.passwords.check(ctx, name, password, leave)
	if err != nil {
		takeBack()
		return "", err
	}
	if !right {
		if name == "" {
			name = "unknown"
		}
		if err := s.store.AddAudit(ctx, store.NewAuditEntry(now, name, "denied", "sign-in", map[string]any{"source": source})); err != nil {
			return "", err
		}
		return "", ErrWrong
	}
	takeBack()
	sessionSecret := secret.New()
	err = s.store.AddSession(ctx, store.Session{Hash: secret.Hash(sessionSecret), User: u.Name, PasswordHash: u.Hash, Source: source, Expires: now.Add(SessionLife)},
		store.NewAuditEntry(now, u.Name, "sign_in", u.Name, map[string]any{"source": source}))
	if errors.Is(err, store.ErrConflict) { // removed, or given another password, meanwhile
		return "", ErrWrong
	}
	if err != nil {
		return "", err
	}
	return sessionSecret, nil
}

// SignOut ends a session.
func (s *Service) SignOut(ctx context.Context, sessionSecret string, i Identity) error {
	if err := s.store.EndSession(ctx, secret.Hash(sessionSecret)); err != nil {
		return err
	}
	s.RightsChanged()
	return s.store.AddAudit(ctx, store.NewAuditEntry(time.Now(), i.Name, "sign_out", i.Name, nil))
}

// HashPassword returns the hash of a new password for a user whom creator may change.
// It returns an *InvalidError for a password that is too short or too long, and a
// *limit.TryLater.
func (s *Service) HashPassword(ctx context.Context, creator Identity, password string) (string, error) {
	return s.passwords.hash(ctx, creator.Creator(), password)
}

// ErrNoPassword means that an identity is a token, which has no password.
var ErrNoPassword = errors.New("a token has no password")

// ChangePassword changes the password of a user who is signed in, and ends the user's
// other sessions. A wrong old password (ErrWrong) counts as a failed attempt.
func (s *Service) ChangePassword(ctx context.Context, i Identity, old, password string) error {
	if i.admin || i.token != "" {
		return ErrNoPassword
	}
	now := time.Now()
	takeBack, leave, err := s.passwords.admitUser(ctx, now, i.Name)
	if err != nil {
		return err
	}
	right, u, err := s.passwords.check(ctx, i.Name, old, leave)
	if err != nil {
		takeBack()
		return err
	}
	if !right {
		if err := s.store.AddAudit(ctx, store.NewAuditEntry(now, i.Name, "denied", "password", nil)); err != nil {
			return err
		}
		return ErrWrong
	}
	takeBack()
	hash, err := s.passwords.hash(ctx, i.Name, password)
	if err != nil {
		return err
	}
	_, err = s.store.UpdateUser(ctx, i.Name, store.UserChange{Hash: &hash, OldHash: u.Hash, KeepSession: i.session},
		store.NewAuditEntry(now, i.Name, "password.change", i.Name, nil))
	if err == nil {
		s.RightsChanged()
	}
	return err
}
