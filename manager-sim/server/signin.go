package server

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"golang.org/x/crypto/argon2"
)

// Sizes of argon2id, as RFC 9106 section 4 recommends them for where 2 GiB are
// too much.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 4
	argonSalt    = 16
	argonKey     = 32
	argonPrefix  = "$argon2id$v=19$m=65536,t=3,p=4$"
)

// HashPassword returns how a password is kept.
func HashPassword(password string) string {
	salt := make([]byte, argonSalt)
	rand.Read(salt) // never fails
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
	return argonPrefix + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(key)
}

func checkPassword(hash, password string) bool {
	rest, ok := strings.CutPrefix(hash, argonPrefix)
	saltText, keyText, ok2 := strings.Cut(rest, "$")
	salt, err1 := base64.RawStdEncoding.DecodeString(saltText)
	key, err2 := base64.RawStdEncoding.DecodeString(keyText)
	if !ok || !ok2 || err1 != nil || err2 != nil {
		return false
	}
	return subtle.ConstantTimeCompare(argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey), key) == 1
}

// Sign-in.
const (
	SessionLife = 12 * time.Hour

	// Attempts a minute that can fail: of a name from a source, and of a source. There
	// is no limit of a name alone: by that, strangers would lock the user out. What
	// bounds guessing from many sources is that one password is checked at a time.
	attemptsByPair   = 5
	attemptsBySource = 5
)

// Errors of SignIn that a person is shown. The first two come as a *TryLater.
var (
	ErrLocked = errors.New("too many failed attempts")
	ErrBusy   = errors.New("too many passwords are being checked")
	ErrWrong  = errors.New("the name or the password is wrong")
)

// noHash is checked when a name is not known, so that it takes as long.
var noHash = HashPassword(rand.Text())

// SignIn checks a password and returns the secret of a new session. source is the
// address of whoever signs in. Five failures in a minute lock the name out from
// that source, and the source for all names that never signed in from it.
func (s *Server) SignIn(ctx context.Context, source, name, password string) (string, error) {
	source = sourceOf(source)
	if api.CheckUserName(name) != nil {
		name = "" // no user has it
	}
	now := time.Now()
	giveBack, leave, err := s.admit(ctx, now, source, name)
	if err != nil {
		return "", err
	}
	right, u, err := s.isPassword(ctx, name, password, leave)
	if err != nil {
		giveBack()
		return "", err
	}
	if !right {
		if name == "" {
			name = "unknown"
		}
		if err := s.Store.AddAudit(ctx, audit(now.UTC(), name, "denied", "sign-in", map[string]any{"source": source})); err != nil {
			return "", err
		}
		return "", ErrWrong
	}
	giveBack()
	secret := NewSecret()
	err = s.Store.AddSession(ctx, store.Session{Hash: Hash(secret), User: u.Name, PasswordHash: u.Hash, Source: source, Expires: now.Add(SessionLife)},
		audit(now.UTC(), u.Name, "sign_in", u.Name, map[string]any{"source": source}))
	if errors.Is(err, store.ErrConflict) { // removed, or given another password, meanwhile
		return "", ErrWrong
	}
	if err != nil {
		return "", err
	}
	return secret, nil
}

// admit counts an attempt, before anything is computed, and waits for its turn.
func (s *Server) admit(ctx context.Context, now time.Time, source, name string) (giveBack, leave func(), err error) {
	known := false
	if name != "" {
		if known, err = s.Store.SignedInFrom(ctx, name, source, now); err != nil {
			return nil, nil, err
		}
	}
	// A source has no space, so that no name makes the key of another pair.
	limits := []limit{{"pair " + source + " " + name, attemptsByPair}}
	class, queue := own, source+" "+name
	if !known {
		limits = append(limits, limit{"source " + source, attemptsBySource})
		class, queue = stranger, source
	}
	giveBack, wait := s.signins.take(now, limits...)
	if wait > 0 {
		return nil, nil, &TryLater{wait, "too many failed attempts", ErrLocked}
	}
	if leave, err = s.hashes.enter(ctx, class, queue, name); err != nil {
		giveBack()
		return nil, nil, err
	}
	return giveBack, leave, nil
}

// isPassword reports whether the password is the user's. It calls leave.
func (s *Server) isPassword(ctx context.Context, name, password string, leave func()) (bool, store.User, error) {
	defer leave()
	u, err := s.Store.User(ctx, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, u, err
	}
	hash := u.Hash
	if err != nil {
		hash = noHash
	}
	return len(password) <= api.MaxPassword && checkPassword(hash, password) && err == nil, u, nil
}

// newHash hashes a password that somebody who may do so sets.
func (s *Server) newHash(ctx context.Context, actor, password string) (string, error) {
	if len([]rune(password)) < api.MinPassword || len(password) > api.MaxPassword {
		return "", badUser{errors.New("the password must have 12 to 1024 characters")}
	}
	leave, err := s.hashes.enter(ctx, own, "set "+actor, "set "+actor)
	if err != nil {
		return "", err
	}
	defer leave()
	return HashPassword(password), nil
}

// SessionIdentity returns who has a session, or store.ErrNotFound.
func (s *Server) SessionIdentity(ctx context.Context, secret string) (Identity, error) {
	return s.sessionIdentity(ctx, Hash(secret))
}

func (s *Server) sessionIdentity(ctx context.Context, hash string) (Identity, error) {
	u, ends, err := s.Store.SessionUser(ctx, hash, time.Now())
	if err != nil {
		return Identity{}, err
	}
	i := IdentityOf(u)
	i.session, i.until = hash, ends
	return i, nil
}

// SignOut ends a session.
func (s *Server) SignOut(ctx context.Context, secret string, i Identity) error {
	if err := s.Store.EndSession(ctx, Hash(secret)); err != nil {
		return err
	}
	s.access.change()
	return s.Store.AddAudit(ctx, audit(time.Now().UTC(), i.Name, "sign_out", i.Name, nil))
}
