package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// route is one call of the API: how it is served, and what openapi.json says
// of it.
type route struct {
	method, path string
	least        api.Role
	h            http.HandlerFunc
	summary      string
	query        []param
	in           any // the body's type; nil: none
	status       int // of success
	out          any // type of the answer; nil: none
	secret       bool
}

// param is one of the query.
type param struct {
	name, kind, text string // kind: a type of JSON Schema, or "time"
}

var paging = []param{
	{"limit", "integer", fmt.Sprintf("at most so many entries: 1 to %d; default %d", api.MaxLimit, api.DefaultLimit)},
	{"after", "string", "go on after this entry: `next` of the answer before"},
}

func (s *Server) table() []route {
	return []route{
		{"GET", "/api/v1/nodes", api.Viewer, s.listNodes, "List the nodes, by id", append([]param{{"id_prefix", "string", "whose id begins so"}, {"removed", "boolean", "those that were removed instead"}}, paging...), nil, 200, api.NodeList{}, false},
		{"GET", "/api/v1/nodes/{id}", api.Viewer, s.getNode, "Show a node", nil, nil, 200, api.Node{}, false},
		{"GET", "/api/v1/nodes/{id}/commands", api.Viewer, s.listCommands, "List a node's commands, newest first", paging, nil, 200, api.CommandList{}, false},
		{"GET", "/api/v1/nodes/{id}/connections", api.Viewer, s.listConnections, "List when a node came and went, newest first", nil, nil, 200, api.ConnectionList{}, false},
		{"POST", "/api/v1/nodes/{id}/upgrade", api.Operator, s.upgradeNode, "Tell a node to upgrade", nil, api.NodeUpgrade{}, 202, api.CommandCreated{}, false},
		{"DELETE", "/api/v1/nodes/{id}", api.GroupAdmin, s.removeNode, "Remove a node: its secret is revoked, its history stays", nil, api.Reason{}, 204, nil, false},
		{"POST", "/api/v1/nodes/{id}/resolve", api.GroupAdmin, s.resolveNode, "End the mark that two devices use one identity", nil, nil, 200, api.Node{}, false},
		{"PUT", "/api/v1/nodes/{id}/group", api.GroupAdmin, s.setGroup, "Move a node into a group, or out of any", nil, api.Membership{}, 200, api.Membership{}, false},
		{"GET", "/api/v1/events", api.Viewer, s.listEvents, "List events, newest first", []param{
			{"node_id", "string", "of this node: its id, or at least four characters of its beginning"}, {"severity", "string", "info, warning or critical"}, {"category", "string", "as upgrade"},
			{"command_id", "string", "of this command"}, {"search", "string", "with this text in the message or the error code"},
			{"from", "time", "received then or later"}, {"to", "time", "received before"},
			{"after", "string", "go on after this event: `next` of the answer before. Unlike page it is not moved by new events"},
			{"page", "integer", "from 1"}, {"per_page", "integer", fmt.Sprintf("1 to %d; default 50", api.MaxEventsPerPage)},
		}, nil, 200, api.EventList{}, false},
		{"GET", "/api/v1/events/stream", api.Viewer, s.streamEvents, "Follow what happens, as server-sent events (text/event-stream); Last-Event-ID replays what was missed", nil, nil, 200, nil, false},
		{"GET", "/api/v1/releases/{device_type}", api.Viewer, s.listReleases, "List the newest releases for a device type", []param{{"channel", "string", "default stable"}}, nil, 200, api.ReleaseList{}, false},
		{"GET", "/api/v1/groups", api.Viewer, s.listGroups, "List the groups", nil, nil, 200, api.GroupList{}, false},
		{"POST", "/api/v1/groups", api.SuperAdmin, s.addGroup, "Add a group", nil, api.NewGroup{}, 201, api.Group{}, false},
		{"GET", "/api/v1/groups/{id}", api.Viewer, s.getGroup, "Show a group and its nodes", nil, nil, 200, api.GroupDetail{}, false},
		{"POST", "/api/v1/groups/{id}/upgrade", api.GroupAdmin, s.upgradeGroup, "Begin a rollout to a group; with dry_run (200) only say what it would do", nil, api.RolloutRequest{}, 202, api.RolloutPlan{}, false},
		{"GET", "/api/v1/rollouts", api.Viewer, s.listRollouts, "List rollouts, newest first", append([]param{{"group_id", "string", "of this group"}, {"active", "boolean", "only those that have not ended"}}, paging...), nil, 200, api.RolloutList{}, false},
		{"GET", "/api/v1/rollouts/{id}", api.Viewer, s.getRollout, "Show a rollout", nil, nil, 200, api.Rollout{}, false},
		{"POST", "/api/v1/rollouts/{id}/{act}", api.GroupAdmin, s.actOnRollout, "pause, resume, retry, skip (a node) or abort a rollout", nil, api.RolloutAct{}, 200, api.Rollout{}, false},
		{"GET", "/api/v1/audit-log", api.SuperAdmin, s.listAudit, "List the audit trail, newest first", append([]param{{"actor", "string", "of this user or token"}, {"action", "string", "as denied"}, {"target", "string", "of this node, group or user"}}, paging...), nil, 200, api.AuditList{}, false},
		{"GET", "/api/v1/users", api.SuperAdmin, s.listUsers, "List the users", nil, nil, 200, api.UserList{}, false},
		{"POST", "/api/v1/users", api.SuperAdmin, s.createUser, "Add a user", nil, api.NewUser{}, 201, api.UserCreated{}, false},
		{"DELETE", "/api/v1/users/{name}", api.SuperAdmin, s.removeUser, "Remove a user, and end its sessions and the tokens that it created", nil, api.Reason{}, 204, nil, false},
		{"POST", "/api/v1/tokens", api.SuperAdmin, s.createToken, "Make a program's bearer token, which is shown once", nil, api.NewToken{}, 201, api.TokenCreated{}, true},
		{"GET", "/metrics", api.Viewer, s.metrics.handler().ServeHTTP, "Metrics in Prometheus' text format", nil, nil, 200, nil, false},
		{"PATCH", "/api/v1/users/{name}", api.SuperAdmin, s.updateUser, "Change a user's role, groups or password", nil, api.UserChange{}, 200, api.User{}, false},
		{"PUT", "/api/v1/password", api.Viewer, s.changePassword, "Change the password of the user who is signed in, and end its other sessions", nil, api.PasswordChange{}, 204, nil, false},
		{"GET", "/api/v1/tokens", api.SuperAdmin, s.listTokens, "List the tokens, newest first, also those that have expired", nil, nil, 200, api.TokenList{}, false},
		{"DELETE", "/api/v1/tokens/{id}", api.SuperAdmin, s.revokeToken, "Revoke a token, and those that it created", nil, api.Reason{}, 204, nil, false},
		{"GET", "/api/v1/pending-nodes", api.SuperAdmin, s.listPending, "List the nodes whose credentials this manager does not know", nil, nil, 200, api.PendingNodeList{}, false},
		{"POST", "/api/v1/pending-nodes/{id}/accept", api.SuperAdmin, s.acceptPending, "Accept a pending node with its own credentials", nil, api.Acceptance{}, 201, api.NodeAccepted{}, false},
		{"DELETE", "/api/v1/pending-nodes/{id}", api.SuperAdmin, s.dismissPending, "Ignore a pending node for an hour", nil, nil, 204, nil, false},
	}
}

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET "+wire.Path, s.serveNode)
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	s.mux.HandleFunc("GET /readyz", s.ready)
	routes := s.table()
	doc := openAPI(routes)
	s.mux.HandleFunc("GET /api/v1/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(doc)
	})
	for _, rt := range routes {
		s.mux.HandleFunc(rt.method+" "+rt.path, s.metrics.measured(rt.method+" "+rt.path, s.auth(rt.least, s.once(rt, rt.h))))
	}
}

// ready says whether nodes and operators can be served.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if err := s.Store.Ping(r.Context()); err != nil || closed {
		s.Log.Warn().Err(err).Bool("closed", closed).Msg("not ready")
		fail(w, http.StatusServiceUnavailable, api.CodeNotReady, "the manager is stopping, or its database cannot be reached; see its log")
		return
	}
	reply(w, http.StatusOK, map[string]string{"status": "ready"})
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	write(w, code, v)
}

// write encodes first: an answer is whole, or an error with its own status.
func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Cache-Control", "no-store")
	b, err := encode(v)
	if err != nil {
		code = http.StatusInternalServerError
		w.Header().Set("Content-Type", "application/problem+json")
		b, _ = json.Marshal(api.Problem{Type: "about:blank", Title: http.StatusText(code), Status: code, Detail: "the answer cannot be encoded: " + err.Error(), Code: api.CodeInternal}) // of texts and a number
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	w.Write(append(b, '\n'))
}

// encode is json.Marshal without its escapes for HTML, which make six bytes of one: the
// bounds of texts would bound nothing.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func fail(w http.ResponseWriter, status int, code, format string, args ...any) {
	w.Header().Set("Content-Type", "application/problem+json")
	write(w, status, api.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...), Code: code})
}

// storeFailed answers an error of the store.
func (s *Server) storeFailed(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, store.ErrNotFound):
		fail(w, http.StatusNotFound, api.CodeNotFound, "%v", err)
	case errors.Is(err, store.ErrRepeated):
		fail(w, http.StatusConflict, api.CodeRepeated, repeated)
	case errors.Is(err, store.ErrExists), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotMarked):
		fail(w, http.StatusConflict, api.CodeConflict, "%v", err)
	default:
		s.Log.Error().Err(err).Msg("store")
		fail(w, http.StatusInternalServerError, api.CodeInternal, "the manager's store failed; see its log")
	}
}

// readBody decodes a body of JSON without unknown fields, or answers why not.
func readBody(w http.ResponseWriter, r *http.Request, to any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, api.MaxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		fail(w, http.StatusBadRequest, api.CodeBadRequest, "the body is not what this call takes: %v", err)
		return false
	}
	return true
}

const repeated = "a request with this Idempotency-Key was carried out, or is being carried out, and its answer is not known; look at what there is before you use another key"

// once honours the header Idempotency-Key of a call that changes something: the
// change and a note of the key are made together, and the same request gets
// the same answer for a day.
func (s *Server) once(rt route, h http.HandlerFunc) http.HandlerFunc {
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
			fail(w, http.StatusBadRequest, api.CodeBadRequest, "Idempotency-Key has more than %d characters", api.MaxIdempotencyKey)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.MaxBody))
		if err != nil {
			fail(w, http.StatusBadRequest, api.CodeBadRequest, "the body cannot be read: %v", err)
			return
		}
		o := &store.Once{Key: Hash(who(r).Name + "\x00" + key), Fingerprint: s.fingerprint(r, body)}
		before, err := s.Store.Answer(r.Context(), o.Key)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			s.storeFailed(w, err)
			return
		case before.Fingerprint != o.Fingerprint:
			fail(w, http.StatusUnprocessableEntity, api.CodeKeyReused, "this Idempotency-Key was used for another request")
			return
		case before.Status == 0:
			fail(w, http.StatusConflict, api.CodeRepeated, repeated)
			return
		default:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Idempotency-Replayed", "true")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(before.Status)
			io.WriteString(w, before.Body)
			return
		}
		r = r.WithContext(o.With(r.Context()))
		r.Body = io.NopCloser(bytes.NewReader(body))
		copied := &copyWriter{statusWriter: statusWriter{ResponseWriter: w, status: http.StatusOK}}
		h(copied, r)
		if o.Done() && copied.status < 300 && !rt.secret {
			if err := s.Store.SetAnswer(r.Context(), o.Key, store.Answer{Status: copied.status, Body: copied.body.String()}); err != nil {
				s.Log.Error().Err(err).Msg("the answer is not kept")
			}
		}
	}
}

// copyWriter keeps what is answered.
type copyWriter struct {
	statusWriter
	body bytes.Buffer
}

func (c *copyWriter) Write(b []byte) (int, error) {
	c.body.Write(b)
	return c.ResponseWriter.Write(b)
}

// query reads numbers and times of a query, and remembers the first that is
// none.
type query struct {
	r   *http.Request
	bad error
}

func (q *query) number(key string, to *int, most int) {
	if v := q.r.URL.Query().Get(key); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > most {
			q.bad = fmt.Errorf("%s=%.40q is not a number from 1 to %d", key, v, most)
			return
		}
		*to = n
	}
}

func (q *query) boolean(key string, to *bool) {
	if v := q.r.URL.Query().Get(key); v != "" {
		b, err := strconv.ParseBool(v)
		if err != nil {
			q.bad = fmt.Errorf("%s=%.40q is neither true nor false", key, v)
			return
		}
		*to = b
	}
}

func (q *query) sequence(key string, to *int64) {
	if v := q.r.URL.Query().Get(key); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 {
			q.bad = fmt.Errorf("%s=%.40q is not what an answer had as \"next\"", key, v)
			return
		}
		*to = n
	}
}

func (q *query) instant(key string, to *time.Time) {
	if v := q.r.URL.Query().Get(key); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			q.bad = fmt.Errorf("%s=%.40q is not a time as RFC 3339 has it", key, v)
			return
		}
		*to = t
	}
}

// failed answers what is wrong with the query, if something is.
func (q *query) failed(w http.ResponseWriter) bool {
	if q.bad != nil {
		fail(w, http.StatusBadRequest, api.CodeBadRequest, "%v", q.bad)
	}
	return q.bad != nil
}

// cut returns what a page has of a list, and the id to go on after; "": nothing
// is left. It answers a query that is none, and returns false.
func cut[T any](w http.ResponseWriter, r *http.Request, list []T, id func(T) string) ([]T, string, bool) {
	limit := api.DefaultLimit
	q := query{r: r}
	if q.number("limit", &limit, api.MaxLimit); q.failed(w) {
		return nil, "", false
	}
	if after := r.URL.Query().Get("after"); after != "" {
		i := slices.IndexFunc(list, func(v T) bool { return id(v) == after })
		if i < 0 {
			fail(w, http.StatusBadRequest, api.CodeBadRequest, "after=%.80q is not in the list", after)
			return nil, "", false
		}
		list = list[i+1:]
	}
	if len(list) <= limit {
		return list, "", true
	}
	return list[:limit], id(list[limit-1]), true
}
