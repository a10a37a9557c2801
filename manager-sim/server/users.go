package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// The bodies of the calls.
type (
	userList struct {
		Users []store.User `json:"users"`
	}
	named struct {
		Name string `json:"name"`
	}
	newUser struct {
		Name     string   `json:"name"`
		Password string   `json:"password"`
		Role     string   `json:"role"`
		Groups   []string `json:"groups,omitempty"` // ids; "*": all
	}
	newToken struct {
		Name   string   `json:"name"`
		Role   string   `json:"role"`
		Groups []string `json:"groups,omitempty"`
	}
	tokenMade struct {
		Token string `json:"token"`
	}
)

func (s *Server) listUsers(w http.ResponseWriter, r *http.Request) {
	us, err := s.Store.Users(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusOK, userList{us})
}

func (s *Server) createUser(w http.ResponseWriter, r *http.Request) {
	var body newUser
	if !readBody(w, r, &body) {
		return
	}
	err := s.addUser(r.Context(), who(r).Name, store.User{Name: body.Name, Role: body.Role, Groups: body.Groups}, body.Password)
	var bad badUser
	switch {
	case errors.As(err, &bad):
		fail(w, http.StatusBadRequest, "bad_request", "%v", err)
	case err != nil:
		s.storeFailed(w, err)
	default:
		reply(w, http.StatusCreated, named{body.Name})
	}
}

func (s *Server) removeUser(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if err := s.Store.RemoveUser(r.Context(), name, audit(time.Now().UTC(), who(r).Name, "user.remove", name, nil)); err != nil {
		s.storeFailed(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// createToken makes a bearer token for a program. It is told once.
func (s *Server) createToken(w http.ResponseWriter, r *http.Request) {
	var body newToken
	if !readBody(w, r, &body) {
		return
	}
	if !userNames.MatchString(body.Name) || !slices.Contains(Roles, Role(body.Role)) {
		fail(w, http.StatusBadRequest, "bad_request", "%s", fmt.Sprintf("a token needs a name (letters, digits and ._@-) and a role of %v", Roles))
		return
	}
	token := NewSecret()
	u := store.User{Name: body.Name, Role: body.Role, Groups: body.Groups, CreatedAt: time.Now().UTC()}
	if err := s.Store.AddAPIToken(r.Context(), Hash(token), u, audit(u.CreatedAt, who(r).Name, "token.create", u.Name, map[string]any{"role": u.Role, "groups": u.Groups})); err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusCreated, tokenMade{token})
}
