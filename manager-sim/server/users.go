package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// userRoutes are the routes under /api/v1/users, and /api/v1/password.
type userRoutes struct{ *gate }

// userFailed answers why a user could not be added or changed.
func (g *gate) userFailed(w http.ResponseWriter, err error) {
	var invalid *identity.InvalidError
	var later *limit.TryLater
	switch {
	case errors.As(err, &invalid):
		badRequest(w, err)
	case errors.As(err, &later):
		w.Header().Set("Retry-After", fmt.Sprint(later.Seconds()))
		answer.Problem(w, http.StatusTooManyRequests, api.CodeTooManyAttempts, "%v", later)
	case errors.Is(err, store.ErrUnreadable):
		g.log.Error().Err(err).Msg("user cannot be read")
		answer.Problem(w, http.StatusInternalServerError, api.CodeInternal, "%v. Give the user its groups anew, or remove it", err)
	case errors.Is(err, store.ErrLastSuperAdmin):
		answer.Problem(w, http.StatusConflict, api.CodeLastSuperAdmin, "%v", err)
	default:
		g.storeFailed(w, err)
	}
}

// warnSeesNothing returns a warning if none of the groups exists that a role is for.
func (g *gate) warnSeesNothing(ctx context.Context, name, role string, groups []string) (string, error) {
	if (identity.Identity{Role: api.Role(role), Groups: groups}).In("") {
		return "", nil
	}
	for _, id := range groups {
		_, err := g.store.Group(ctx, id)
		if err == nil {
			return "", nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return "", err
		}
	}
	return fmt.Sprintf("%s has the role %s in no group, and sees nothing. Give it a group, or \"*\" for all.", name, role), nil
}

func (h *userRoutes) list(w http.ResponseWriter, r *http.Request) {
	ctx, unreadable := store.CountUnreadable(r.Context())
	us, err := h.store.Users(ctx)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	list := api.UserList{Users: make([]api.User, len(us)), Unreadable: *unreadable}
	for i, u := range us {
		list.Users[i] = u.API()
	}
	answer.JSON(w, http.StatusOK, list)
}

func (h *userRoutes) create(w http.ResponseWriter, r *http.Request) {
	var body api.NewUser
	if !readBody(w, r, &body) {
		return
	}
	u := store.User{Name: body.Name, Role: body.Role, Groups: body.Groups, CreatedAt: time.Now().UTC()}
	warning := ""
	err := identity.CheckUser(u.Name, u.Role)
	if err == nil {
		warning, err = h.warnSeesNothing(r.Context(), u.Name, u.Role, u.Groups)
	}
	if err == nil {
		u.Hash, err = h.identities.HashPassword(r.Context(), requester(r), body.Password)
	}
	if err == nil {
		err = h.store.AddUser(r.Context(), u, entry(r, "user.create", u.Name, map[string]any{"role": u.Role, "groups": u.Groups}))
	}
	if err != nil {
		h.userFailed(w, err)
		return
	}
	answer.JSON(w, http.StatusCreated, api.UserCreated{Name: body.Name, Warning: warning})
}

func (h *userRoutes) update(w http.ResponseWriter, r *http.Request) {
	var body api.UserChange
	if !readBody(w, r, &body) {
		return
	}
	name := r.PathValue("name")
	c := store.UserChange{Role: body.Role, Groups: body.Groups, KeepSession: requester(r).Session()}
	changed := map[string]any{}
	var err error
	if body.Role != nil {
		err = identity.CheckRole(*body.Role)
		changed["role"] = *body.Role
	}
	if body.Groups != nil {
		changed["groups"] = *body.Groups
	}
	if body.Password != nil && err == nil {
		var hash string
		hash, err = h.identities.HashPassword(r.Context(), requester(r), *body.Password)
		c.Hash = &hash
		changed["password"] = "changed"
	}
	if len(changed) == 0 {
		err = &identity.InvalidError{Err: errors.New("nothing to change: give role, groups or password")}
	}
	var u store.User
	if err == nil {
		u, err = h.store.UpdateUser(r.Context(), name, c, entry(r, "user.update", name, changed))
	}
	if err != nil {
		h.userFailed(w, err)
		return
	}
	h.identities.RightsChanged()
	answer.JSON(w, http.StatusOK, u.API())
}

func (h *userRoutes) remove(w http.ResponseWriter, r *http.Request) {
	reason, ok := readReason(w, r)
	if !ok {
		return
	}
	var details map[string]any
	if reason != "" {
		details = map[string]any{"reason": reason}
	}
	name := r.PathValue("name")
	if err := h.store.RemoveUser(r.Context(), name, entry(r, "user.remove", name, details)); err != nil {
		h.userFailed(w, err)
		return
	}
	h.identities.RightsChanged()
	w.WriteHeader(http.StatusNoContent)
}

// changePassword changes the password of the user who is signed in.
func (h *userRoutes) changePassword(w http.ResponseWriter, r *http.Request) {
	var body api.PasswordChange
	if !readBody(w, r, &body) {
		return
	}
	i := requester(r)
	err := h.identities.ChangePassword(r.Context(), i, body.Old, body.New)
	switch {
	case errors.Is(err, identity.ErrNoPassword):
		answer.Problem(w, http.StatusConflict, api.CodeNoPassword, "%s is a token, and has no password: sign in to change yours", i.Name)
	case errors.Is(err, identity.ErrWrong):
		answer.Problem(w, http.StatusForbidden, api.CodeWrongPassword, "the old password is wrong")
	case err != nil:
		h.userFailed(w, err)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
