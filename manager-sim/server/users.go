package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// badUser is a mistake of whoever adds or changes a user.
type badUser struct{ error }

func checkUser(u store.User) error {
	if err := api.CheckUserName(u.Name); err != nil {
		return badUser{err}
	}
	return checkRole(u.Role)
}

func checkRole(role string) error {
	if err := api.CheckRole(role); err != nil {
		return badUser{err}
	}
	return nil
}

// userFailed answers why a user could not be added or changed.
func (s *Server) userFailed(w http.ResponseWriter, err error) {
	var bad badUser
	var later *TryLater
	switch {
	case errors.As(err, &bad):
		fail(w, http.StatusBadRequest, api.CodeBadRequest, "%v", err)
	case errors.As(err, &later):
		w.Header().Set("Retry-After", fmt.Sprint(later.Seconds()))
		fail(w, http.StatusTooManyRequests, api.CodeTooManyAttempts, "%v", later)
	case errors.Is(err, store.ErrLastSuperAdmin):
		fail(w, http.StatusConflict, api.CodeLastSuperAdmin, "%v", err)
	default:
		s.storeFailed(w, err)
	}
}

func (s *Server) listUsers(w http.ResponseWriter, r *http.Request) {
	us, err := s.Store.Users(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	users := make([]api.User, len(us))
	for i, u := range us {
		users[i] = u.API()
	}
	reply(w, http.StatusOK, api.UserList{Users: users})
}

func (s *Server) createUser(w http.ResponseWriter, r *http.Request) {
	var body api.NewUser
	if !readBody(w, r, &body) {
		return
	}
	u := store.User{Name: body.Name, Role: body.Role, Groups: body.Groups, CreatedAt: time.Now().UTC()}
	warning := ""
	err := checkUser(u)
	if err == nil {
		warning, err = s.seesNothing(r.Context(), u)
	}
	if err == nil {
		u.Hash, err = s.newHash(r.Context(), who(r).maker(), body.Password)
	}
	if err == nil {
		err = s.Store.AddUser(r.Context(), u, audit(u.CreatedAt, who(r).Name, "user.create", u.Name, map[string]any{"role": u.Role, "groups": u.Groups}))
	}
	if err != nil {
		s.userFailed(w, err)
		return
	}
	reply(w, http.StatusCreated, api.UserCreated{Name: body.Name, Warning: warning})
}

// seesNothing returns a warning if no group that the user's role is for exists.
func (s *Server) seesNothing(ctx context.Context, u store.User) (string, error) {
	i := IdentityOf(u)
	if i.In("") {
		return "", nil
	}
	for _, id := range u.Groups {
		_, err := s.Store.Group(ctx, id)
		if err == nil {
			return "", nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return "", err
		}
	}
	return fmt.Sprintf("%s has the role %s in no group, and sees nothing. Give it a group, or \"*\" for all.", u.Name, u.Role), nil
}

func (s *Server) updateUser(w http.ResponseWriter, r *http.Request) {
	var body api.UserChange
	if !readBody(w, r, &body) {
		return
	}
	name := r.PathValue("name")
	c := store.UserChange{Role: body.Role, Groups: body.Groups, KeepSession: who(r).session}
	changed := map[string]any{}
	var err error
	if body.Role != nil {
		err = checkRole(*body.Role)
		changed["role"] = *body.Role
	}
	if body.Groups != nil {
		changed["groups"] = *body.Groups
	}
	if body.Password != nil && err == nil {
		var hash string
		hash, err = s.newHash(r.Context(), who(r).maker(), *body.Password)
		c.Hash = &hash
		changed["password"] = "changed"
	}
	if len(changed) == 0 {
		err = badUser{errors.New("nothing to change: give role, groups or password")}
	}
	var u store.User
	if err == nil {
		u, err = s.Store.UpdateUser(r.Context(), name, c, audit(time.Now().UTC(), who(r).Name, "user.update", name, changed))
	}
	if err != nil {
		s.userFailed(w, err)
		return
	}
	s.access.change()
	reply(w, http.StatusOK, u.API())
}

func (s *Server) removeUser(w http.ResponseWriter, r *http.Request) {
	reason, ok := readReason(w, r)
	if !ok {
		return
	}
	var details map[string]any
	if reason != "" {
		details = map[string]any{"reason": reason}
	}
	name := r.PathValue("name")
	if err := s.Store.RemoveUser(r.Context(), name, audit(time.Now().UTC(), who(r).Name, "user.remove", name, details)); err != nil {
		s.userFailed(w, err)
		return
	}
	s.access.change()
	w.WriteHeader(http.StatusNoContent)
}

// changePassword changes the password of whoever is signed in. Wrong old passwords
// are counted like failed attempts to sign in.
func (s *Server) changePassword(w http.ResponseWriter, r *http.Request) {
	var body api.PasswordChange
	if !readBody(w, r, &body) {
		return
	}
	i := who(r)
	if i.fixed || i.token != "" {
		fail(w, http.StatusConflict, api.CodeNoPassword, "%s is a token, and has no password: sign in to change yours", i.Name)
		return
	}
	if err := s.setPassword(r.Context(), i, body); err != nil {
		if errors.Is(err, ErrWrong) {
			fail(w, http.StatusForbidden, api.CodeWrongPassword, "the old password is wrong")
			return
		}
		s.userFailed(w, err)
		return
	}
	s.access.change()
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) setPassword(ctx context.Context, i Identity, body api.PasswordChange) error {
	now := time.Now()
	giveBack, wait := s.signins.take(now, limit{"old password " + i.Name, attemptsByPair})
	if wait > 0 {
		return &TryLater{wait, "too many failed attempts", ErrLocked}
	}
	leave, err := s.hashes.enter(ctx, own, "set "+i.Name, "set "+i.Name)
	if err != nil {
		giveBack()
		return err
	}
	right, u, err := s.isPassword(ctx, i.Name, body.Old, leave)
	if err != nil {
		giveBack()
		return err
	}
	if !right {
		if err := s.Store.AddAudit(ctx, audit(now.UTC(), i.Name, "denied", "password", nil)); err != nil {
			return err
		}
		return ErrWrong
	}
	giveBack()
	hash, err := s.newHash(ctx, i.Name, body.New)
	if err != nil {
		return err
	}
	_, err = s.Store.UpdateUser(ctx, i.Name, store.UserChange{Hash: &hash, OldHash: u.Hash, KeepSession: i.session},
		audit(now.UTC(), i.Name, "password.change", i.Name, nil))
	return err
}

// fingerprint is what an Idempotency-Key is bound to. A body with a password makes
// one that nobody can check guesses against who has the database alone.
func (s *Server) fingerprint(r *http.Request, body []byte) string {
	text := r.Method + " " + r.URL.Path + "\x00" + string(body)
	if strings.HasPrefix(r.URL.Path, "/api/v1/users") || r.URL.Path == "/api/v1/password" {
		m := hmac.New(sha256.New, s.token[:])
		m.Write([]byte(text))
		return hex.EncodeToString(m.Sum(nil))
	}
	return Hash(text)
}
