package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server"
)

// apiError is a refusal of the API. It may have a code.
type apiError struct {
	status int
	text   string
	code   string
}

func (e *apiError) Error() string { return e.text }

// answer keeps an answer of the API.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// api calls the API as the person who is signed in, and decodes its answer into
// to, unless that is nil. A refusal is an *apiError.
func (r *request) api(method, path string, body, to any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(server.As(r.Context(), r.who), method, path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	a := &answer{header: http.Header{}, status: http.StatusOK}
	r.web.api.ServeHTTP(a, req)
	if a.status >= 300 {
		var problem api.Problem
		if json.Unmarshal(a.body.Bytes(), &problem) != nil || problem.Detail == "" {
			problem.Detail = http.StatusText(a.status)
		}
		return &apiError{a.status, plain(problem.Detail), problem.Code}
	}
	if to == nil {
		return nil
	}
	return json.Unmarshal(a.body.Bytes(), to)
}

// all returns the entries of every page of a list of the API. The path may have
// a query.
func all[T any](r *request, path, field string) ([]T, error) {
	path, query, _ := strings.Cut(path, "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	q.Set("limit", "1000")
	list := []T{}
	for {
		var page map[string]json.RawMessage
		if err := r.api(http.MethodGet, path+"?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		var some []T
		var next string
		if err := json.Unmarshal(page[field], &some); err != nil {
			return nil, err
		}
		list = append(list, some...)
		if page["next"] == nil {
			return list, nil
		}
		if err := json.Unmarshal(page["next"], &next); err != nil {
			return nil, err
		}
		q.Set("after", next)
	}
}

// withReason adds the reason that an operator gave in the form to a body of the
// API. The body is nil if it would be empty.
func (r *request) withReason(body map[string]any) any {
	if reason := strings.TrimSpace(r.PostFormValue("reason")); reason != "" {
		if body == nil {
			body = map[string]any{}
		}
		body["reason"] = reason
	}
	if len(body) == 0 {
		return nil
	}
	return body
}
