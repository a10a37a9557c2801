package server

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

const repeated = "a request with this Idempotency-Key was carried out, or is being carried out, and its answer is not known; look at what there is before you use another key"

// once honours the header Idempotency-Key of requests that change something. The change
// and a record of the key are made together, and the same request gets the same answer
// for a day.
type once struct {
	*gate
	key [32]byte // of the fingerprints of bodies with passwords
}

func (o *once) wrap(rt route, h http.HandlerFunc) http.HandlerFunc {
	if rt.method == http.MethodGet {
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		if key == "" {
			h(w, r)
			return
		}
		if len(key) > api.MaxIdempotencyKey {
			badRequest(w, fmt.Errorf("Idempotency-Key has more than %d characters", api.MaxIdempotencyKey))
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, rt.mostBody()))
		if err != nil {
			badRequest(w, fmt.Errorf("the body cannot be read: %w", err))
			return
		}
		s := &store.Once{Key: secret.Hash(requester(r).Name + "\x00" + key), Fingerprint: o.fingerprint(r, body)}
		if o.replay(w, r, s) {
			return
		}
		r = r.WithContext(s.With(r.Context()))
		r.Body = io.NopCloser(bytes.NewReader(body))
		kept := &copyWriter{statusWriter: statusWriter{ResponseWriter: w, status: http.StatusOK}}
		h(kept, r)
		if s.Done() && kept.status < 300 && !rt.secret {
			if err := o.store.SetAnswer(r.Context(), s.Key, store.Answer{Status: kept.status, Body: kept.body.String()}); err != nil {
				o.log.Error().Err(err).Msg("answer for an Idempotency-Key not kept")
			}
		}
	}
}

// replay answers a request whose key was used before. It reports false for a new key.
func (o *once) replay(w http.ResponseWriter, r *http.Request, s *store.Once) bool {
	before, err := o.store.Answer(r.Context(), s.Key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false
	case err != nil:
		o.storeFailed(w, err)
	case before.Fingerprint != s.Fingerprint:
		answer.Problem(w, http.StatusUnprocessableEntity, api.CodeKeyReused, "this Idempotency-Key was used for another request")
	case before.Status == 0:
		answer.Problem(w, http.StatusConflict, api.CodeRepeated, repeated)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Idempotency-Replayed", "true")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(before.Status)
		io.WriteString(w, before.Body)
	}
	return true
}

// fingerprint returns the digest of a request that its key is bound to. For a body with
// a password, or with parameters of an action, it is keyed, so that the database alone does not allow guesses at it.
func (o *once) fingerprint(r *http.Request, body []byte) string {
	text := r.Method + " " + r.URL.Path + "\x00" + string(body)
	if strings.HasPrefix(r.URL.Path, "/api/v1/users") || r.URL.Path == "/api/v1/password" || strings.HasSuffix(r.URL.Path, "/actions") {
		m := hmac.New(sha256.New, o.key[:])
		m.Write([]byte(text))
		return hex.EncodeToString(m.Sum(nil))
	}
	return secret.Hash(text)
}

// copyWriter keeps a copy of the answer.
type copyWriter struct {
	statusWriter
	body bytes.Buffer
}

// Write writes to both.
func (c *copyWriter) Write(b []byte) (int, error) {
	c.body.Write(b)
	return c.ResponseWriter.Write(b)
}
