package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"golang.org/x/crypto/argon2"
)

// Role is what somebody may do, in the groups that the role is for.
type Role string

// The roles; each may do what the ones before it may.
const (
	Viewer     Role = "viewer"      // look
	Operator   Role = "operator"    // upgrade a node
	GroupAdmin Role = "group_admin" // upgrade a group, and say which nodes are in it
	SuperAdmin Role = "super_admin" // groups, users, the audit log; always in all groups
)

// Roles are all of them, the least first.
var Roles = []Role{Viewer, Operator, GroupAdmin, SuperAdmin}

// AllGroups stands for every group, and for nodes in none.
const AllGroups = "*"

// Identity is who makes a request.
type Identity struct {
	Name   string
	Role   Role
	Groups []string // ids; AllGroups: all
}

// May reports whether the role is at least least.
func (i Identity) May(least Role) bool {
	return slices.Contains(Roles, i.Role) && slices.Index(Roles, i.Role) >= slices.Index(Roles, least)
}

// In reports whether the identity's role is for the group.
func (i Identity) In(groupID string) bool {
	return i.Role == SuperAdmin || slices.Contains(i.Groups, AllGroups) || groupID != "" && slices.Contains(i.Groups, groupID)
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
func (s *Server) auth(least Role, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		i, ok := r.Context().Value(identityKey{}).(Identity)
		if !ok {
			var err error
			if i, err = s.bearer(r); err != nil {
				w.Header().Set("WWW-Authenticate", "Bearer")
				fail(w, http.StatusUnauthorized, "unauthorized", "%v", err)
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
	fail(w, http.StatusForbidden, "forbidden", "%s", why)
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
		return Identity{}, errors.New("give a token: Authorization: Bearer TOKEN")
	}
	given := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(given[:], s.token[:]) == 1 {
		return Identity{Name: "admin", Role: SuperAdmin}, nil
	}
	u, err := s.Store.APIToken(r.Context(), Hash(token))
	if errors.Is(err, store.ErrNotFound) {
		return Identity{}, errors.New("the token is not known")
	}
	return IdentityOf(u), err
}

// IdentityOf is a user's identity.
func IdentityOf(u store.User) Identity {
	return Identity{Name: u.Name, Role: Role(u.Role), Groups: u.Groups}
}

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
	minPassword = 12 // characters
	maxPassword = 1024
)

// Errors of SignIn that a person is shown.
var (
	ErrLocked = errors.New("too many failed attempts; wait a minute")
	ErrWrong  = errors.New("the name or the password is wrong")
)

// noHash is checked when a name is not known, so that it takes as long.
var noHash = HashPassword(rand.Text())

// SignIn checks a password and returns the secret of a new session. Five
// failures in a minute lock the name, and the source, out.
func (s *Server) SignIn(ctx context.Context, source, name, password string) (string, error) {
	now := time.Now()
	keys := []string{"source " + source, "user " + name}
	for _, k := range keys {
		if s.signins.locked(k, now) {
			return "", ErrLocked
		}
	}
	u, err := s.Store.User(ctx, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return "", err
	}
	hash := u.Hash
	if err != nil {
		hash = noHash
	}
	// One at a time: each takes 64 MiB.
	s.hashing.Lock()
	right := len(password) <= maxPassword && checkPassword(hash, password) && err == nil
	s.hashing.Unlock()
	if !right {
		for _, k := range keys {
			s.signins.failed(k, now)
		}
		if !userNames.MatchString(name) {
			name = "unknown"
		}
		if err := s.Store.AddAudit(ctx, audit(now.UTC(), name, "denied", "sign-in", map[string]any{"source": source})); err != nil {
			return "", err
		}
		return "", ErrWrong
	}
	secret := NewSecret()
	if err := s.Store.AddSession(ctx, Hash(secret), u.Name, now.Add(SessionLife)); err != nil {
		return "", err
	}
	return secret, s.Store.AddAudit(ctx, audit(now.UTC(), u.Name, "sign_in", u.Name, map[string]any{"source": source}))
}

// SessionIdentity returns who has a session, or store.ErrNotFound.
func (s *Server) SessionIdentity(ctx context.Context, secret string) (Identity, error) {
	u, err := s.Store.SessionUser(ctx, Hash(secret), time.Now())
	return IdentityOf(u), err
}

// SignOut ends a session.
func (s *Server) SignOut(ctx context.Context, secret string, i Identity) error {
	if err := s.Store.EndSession(ctx, Hash(secret)); err != nil {
		return err
	}
	return s.Store.AddAudit(ctx, audit(time.Now().UTC(), i.Name, "sign_out", i.Name, nil))
}

// NewClaim returns the secret of a link by which the first super admin chooses
// a name and a password; "" if there is a user already.
func (s *Server) NewClaim(ctx context.Context) (string, error) {
	users, err := s.Store.Users(ctx)
	if err != nil || len(users) > 0 {
		return "", err
	}
	secret := NewSecret()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claim = Hash(secret)
	return secret, nil
}

// ErrClaim says that a claim is used up, or never was.
var ErrClaim = errors.New("this link is used up or wrong; start the manager again for another one")

// Claim makes the first super admin. A claim is good once.
func (s *Server) Claim(ctx context.Context, secret, name, password string) error {
	hash := Hash(secret)
	s.mu.Lock()
	good := s.claim != "" && subtle.ConstantTimeCompare([]byte(s.claim), []byte(hash)) == 1
	s.mu.Unlock()
	if !good {
		return ErrClaim
	}
	if err := s.addUser(ctx, "claim", store.User{Name: name, Role: string(SuperAdmin), Groups: []string{AllGroups}}, password); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claim = ""
	return nil
}

var userNames = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._@-]{0,63}$`)

// badUser is a mistake of whoever adds a user.
type badUser struct{ error }

func (s *Server) addUser(ctx context.Context, actor string, u store.User, password string) error {
	switch {
	case !userNames.MatchString(u.Name):
		return badUser{fmt.Errorf("name %.80q is not 1 to 64 letters, digits and ._@-, beginning with a letter or digit", u.Name)}
	case !slices.Contains(Roles, Role(u.Role)):
		return badUser{fmt.Errorf("role %.40q is not one of %v", u.Role, Roles)}
	case len([]rune(password)) < minPassword || len(password) > maxPassword:
		return badUser{fmt.Errorf("the password has to have %d to %d characters", minPassword, maxPassword)}
	}
	u.CreatedAt = time.Now().UTC()
	s.hashing.Lock()
	u.Hash = HashPassword(password)
	s.hashing.Unlock()
	return s.Store.AddUser(ctx, u, audit(u.CreatedAt, actor, "user.create", u.Name, map[string]any{"role": u.Role, "groups": u.Groups}))
}
