package server

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// tokenRoutes are the routes under /api/v1/tokens.
type tokenRoutes struct{ *gate }

func (h *tokenRoutes) list(w http.ResponseWriter, r *http.Request) {
	ctx, unreadable := store.CountUnreadable(r.Context())
	ts, err := h.store.APITokens(ctx)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	list := api.TokenList{Tokens: make([]api.Token, len(ts)), Unreadable: *unreadable}
	for i, t := range ts {
		list.Tokens[i] = t.API()
	}
	answer.JSON(w, http.StatusOK, list)
}

// create adds a bearer token for a program. Only this answer has its secret.
func (h *tokenRoutes) create(w http.ResponseWriter, r *http.Request) {
	var body api.NewToken
	if !readBody(w, r, &body) {
		return
	}
	life := api.DefaultTokenLife
	if secs := body.ExpiresInSecs; secs != 0 {
		if secs < int64(api.MinTokenLife/time.Second) || secs > int64(api.MaxTokenLife/time.Second) {
			badRequest(w, fmt.Errorf("expires_in_secs = %d is outside %d (1 hour) to %d (400 days)", secs, api.MinTokenLife/time.Second, api.MaxTokenLife/time.Second))
			return
		}
		life = time.Duration(secs) * time.Second
	}
	if err := identity.CheckUser(body.Name, body.Role); err != nil {
		h.userFailed(w, err)
		return
	}
	warning, err := h.warnSeesNothing(r.Context(), "Token "+body.Name, body.Role, body.Groups)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	tokenSecret, id := secret.New(), make([]byte, 8)
	rand.Read(id) // never fails
	now := time.Now().UTC()
	t := store.Token{ID: hex.EncodeToString(id), Name: body.Name, Hash: secret.Hash(tokenSecret), Role: body.Role, Groups: body.Groups,
		CreatedAt: now, CreatedBy: requester(r).Creator(), ExpiresAt: now.Add(life).Truncate(time.Second)}
	err = h.store.AddAPIToken(r.Context(), t, entry(r, "token.create", t.Name,
		map[string]any{"id": t.ID, "role": t.Role, "groups": t.Groups, "expires_at": t.ExpiresAt}))
	if errors.Is(err, store.ErrDenied) {
		h.denied(w, r, fmt.Sprintf("%s is no longer a super admin", requester(r).Name))
		return
	}
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	answer.JSON(w, http.StatusCreated, api.TokenCreated{Token: tokenSecret, ID: t.ID, ExpiresAt: t.ExpiresAt, Warning: warning})
}

func (h *tokenRoutes) revoke(w http.ResponseWriter, r *http.Request) {
	reason, ok := readReason(w, r)
	if !ok {
		return
	}
	id := r.PathValue("id")
	name := id
	ts, err := h.store.APITokens(r.Context())
	for _, t := range ts {
		if t.ID == id {
			name = t.Name
		}
	}
	if err == nil {
		err = h.store.RemoveAPIToken(r.Context(), id, entry(r, "token.revoke", name, map[string]any{"id": id, "reason": reason}))
	}
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	h.identities.RightsChanged()
	w.WriteHeader(http.StatusNoContent)
}
