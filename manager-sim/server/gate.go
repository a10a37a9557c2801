package server

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/rs/zerolog"
)

// gate lets requests through that may be made, and answers the others.
type gate struct {
	store      *store.Store
	log        zerolog.Logger
	identities *identity.Service
	metrics    *metrics
}

// requester returns the identity of a request that passed the gate.
func requester(r *http.Request) identity.Identity {
	i, _ := identity.Of(r.Context())
	return i
}

// person returns the requester as rollouts know it.
func person(r *http.Request) rollout.Person {
	i := requester(r)
	return rollout.Person{Key: i.Key(), Name: i.Name}
}

// require lets requests through whose identity has at least a role.
func (g *gate) require(least api.Role, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		i, ok := identity.Of(r.Context())
		if !ok {
			var err error
			i, err = g.identities.Bearer(r)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				g.storeFailed(w, err)
				return
			}
			if err != nil {
				w.Header().Set("WWW-Authenticate", "Bearer")
				answer.Problem(w, http.StatusUnauthorized, api.CodeUnauthorized, "%v", err)
				return
			}
			r = r.WithContext(identity.As(r.Context(), i))
		}
		if !i.May(least) {
			g.denied(w, r, fmt.Sprintf("this call needs the role %s; %s has the role %s", least, i.Name, i.Role))
			return
		}
		h(w, r)
	}
}

// denied answers a request that the identity may not make, and records it.
func (g *gate) denied(w http.ResponseWriter, r *http.Request, reason string) {
	g.metrics.denied.Inc()
	if err := g.store.AddAudit(r.Context(), entry(r, "denied", r.Method+" "+r.URL.Path, map[string]any{"reason": reason})); err != nil {
		g.storeFailed(w, err)
		return
	}
	answer.Problem(w, http.StatusForbidden, api.CodeForbidden, "%s", reason)
}

// inScope reports whether the identity has a role for a group. If not, it answers.
func (g *gate) inScope(w http.ResponseWriter, r *http.Request, groupID string) bool {
	if requester(r).In(groupID) {
		return true
	}
	g.denied(w, r, fmt.Sprintf("%s has no role for this group", requester(r).Name))
	return false
}

// storeFailed answers an error of the store.
func (g *gate) storeFailed(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, store.ErrNotFound):
		answer.Problem(w, http.StatusNotFound, api.CodeNotFound, "%v", err)
	case errors.Is(err, store.ErrRepeated):
		answer.Problem(w, http.StatusConflict, api.CodeRepeated, repeated)
	case errors.Is(err, store.ErrExists), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotMarked):
		answer.Problem(w, http.StatusConflict, api.CodeConflict, "%v", err)
	case store.Unavailable(err):
		g.log.Warn().Err(err).Msg("store is not available")
		w.Header().Set("Retry-After", retryAfter)
		answer.Problem(w, http.StatusServiceUnavailable, api.CodeUnavailable, "%s; try again later", troubleText(err))
	default:
		g.log.Error().Err(err).Msg("store failed")
		answer.Problem(w, http.StatusInternalServerError, api.CodeInternal, "the manager's store failed; see its log")
	}
}

// retryAfter is the header Retry-After of an answer while the store is away, in seconds.
const retryAfter = "5"

// troubleText describes the trouble of the store, without its secrets.
func troubleText(err error) string {
	return "the database of the manager is " + cmp.Or(store.Trouble(err), "not usable")
}

// entry returns the audit entry of what a requester does now.
func entry(r *http.Request, action, target string, details map[string]any) api.AuditEntry {
	return store.NewAuditEntry(time.Now(), requester(r).Name, action, target, details)
}
