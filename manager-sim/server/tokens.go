package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// usedEvery is how often the use of a token is recorded.
const usedEvery = time.Minute

func (s *Server) listTokens(w http.ResponseWriter, r *http.Request) {
	ts, err := s.Store.APITokens(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	tokens := make([]api.Token, len(ts))
	for i, t := range ts {
		tokens[i] = t.API()
	}
	reply(w, http.StatusOK, api.TokenList{Tokens: tokens})
}

// createToken makes a bearer token for a program. Its secret is shown once.
func (s *Server) createToken(w http.ResponseWriter, r *http.Request) {
	var body api.NewToken
	if !readBody(w, r, &body) {
		return
	}
	life := api.DefaultTokenLife
	if secs := body.ExpiresInSecs; secs != 0 {
		if secs < int64(api.MinTokenLife/time.Second) || secs > int64(api.MaxTokenLife/time.Second) {
			fail(w, http.StatusBadRequest, api.CodeBadRequest, "expires_in_secs = %d is outside %d (1 hour) to %d (400 days)", secs, api.MinTokenLife/time.Second, api.MaxTokenLife/time.Second)
			return
		}
		life = time.Duration(secs) * time.Second
	}
	if err := checkUser(store.User{Name: body.Name, Role: body.Role}); err != nil {
		s.userFailed(w, err)
		return
	}
	warning, err := s.seesNothing(r.Context(), store.User{Name: "Token " + body.Name, Role: body.Role, Groups: body.Groups})
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	secret, id := NewSecret(), make([]byte, 8)
	rand.Read(id) // never fails
	now := time.Now().UTC()
	t := store.Token{ID: hex.EncodeToString(id), Name: body.Name, Hash: Hash(secret), Role: body.Role, Groups: body.Groups,
		CreatedAt: now, CreatedBy: who(r).maker(), ExpiresAt: now.Add(life).Truncate(time.Second)}
	err = s.Store.AddAPIToken(r.Context(), t, audit(now, who(r).Name, "token.create", t.Name,
		map[string]any{"id": t.ID, "role": t.Role, "groups": t.Groups, "expires_at": t.ExpiresAt}))
	if errors.Is(err, store.ErrDenied) {
		s.denied(w, r, fmt.Sprintf("%s is no longer a super admin", who(r).Name))
		return
	}
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusCreated, api.TokenCreated{Token: secret, ID: t.ID, ExpiresAt: t.ExpiresAt, Warning: warning})
}

func (s *Server) revokeToken(w http.ResponseWriter, r *http.Request) {
	reason, ok := readReason(w, r)
	if !ok {
		return
	}
	id := r.PathValue("id")
	name := id
	ts, err := s.Store.APITokens(r.Context())
	for _, t := range ts {
		if t.ID == id {
			name = t.Name
		}
	}
	if err == nil {
		err = s.Store.RemoveAPIToken(r.Context(), id, audit(time.Now().UTC(), who(r).Name, "token.revoke", name, map[string]any{"id": id, "reason": reason}))
	}
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	s.access.change()
	w.WriteHeader(http.StatusNoContent)
}

// tokenUses remembers which use of a token was recorded last.
type tokenUses struct {
	mu sync.Mutex
	at map[string]time.Time // by id; a manager has few tokens
}

// tokenUsed records the use of a token, at most once a minute. A use that cannot
// be recorded is no reason to refuse it.
func (s *Server) tokenUsed(ctx context.Context, t store.Token, now time.Time) {
	s.uses.mu.Lock()
	due := now.Sub(s.uses.at[t.ID]) >= usedEvery && now.Sub(t.LastUsedAt) >= usedEvery
	if due {
		if s.uses.at == nil || len(s.uses.at) > maxAttemptKeys {
			s.uses.at = make(map[string]time.Time)
		}
		s.uses.at[t.ID] = now
	}
	s.uses.mu.Unlock()
	if !due {
		return
	}
	if err := s.Store.RecordTokenUse(ctx, t.ID, now); err != nil {
		s.Log.Error().Err(err).Str("token", t.Name).Msg("the use of a token was not recorded")
	}
}
