package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// clientOf returns a client of a handler, with which it shares the process.
func clientOf(h http.HandlerFunc) *api.Client {
	return &api.Client{BaseURL: "http://manager", Token: "secret", HTTP: &http.Client{Transport: api.InProcess(h)}}
}

func TestClientSendsWhatTheCallNeeds(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body string
	c := clientOf(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r, string(b)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"command_id":"c1","of_a_newer_manager":true}`)
	})
	var raw []byte
	id, err := c.UpgradeNode(t.Context(), "a/b", api.NodeUpgrade{Version: "1.2.0", Replace: true}, api.WithIdempotencyKey("k"), api.WithRaw(&raw))
	if err != nil || id != "c1" {
		t.Fatalf("%q, %v", id, err)
	}
	if got.Method != "POST" || got.URL.EscapedPath() != "/api/v1/nodes/a%2Fb/upgrade" || body != `{"version":"1.2.0","replace":true}` {
		t.Errorf("%s %s %s", got.Method, got.URL.EscapedPath(), body)
	}
	for name, want := range map[string]string{"Authorization": "Bearer secret", "Idempotency-Key": "k", "Accept": "application/json", "Content-Type": "application/json"} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s: %q", name, v)
		}
	}
	if !strings.Contains(string(raw), "of_a_newer_manager") {
		t.Errorf("raw answer: %s", raw)
	}
}

func TestTokenIsReadForEachCall(t *testing.T) {
	t.Parallel()
	var got []string
	c := clientOf(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		fmt.Fprint(w, `{"groups":[]}`)
	})
	tokens := []string{"one", "two"}
	c.ReadToken = func() (string, error) { return tokens[len(got)], nil }
	for range tokens {
		if _, err := c.Groups(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, []string{"Bearer one", "Bearer two"}) {
		t.Errorf("%q", got)
	}
	failed := errors.New("no file")
	c.ReadToken = func() (string, error) { return "", failed }
	if _, err := c.Groups(t.Context()); !errors.Is(err, failed) || api.IsUnreachable(err) {
		t.Errorf("%v", err)
	}
}

func TestRefusalIsAProblem(t *testing.T) {
	t.Parallel()
	c := clientOf(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
		json.NewEncoder(w).Encode(api.Problem{Status: 429, Code: api.CodeTooManyAttempts, Detail: "too many failed attempts"})
	})
	_, err := c.Users(t.Context())
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != 429 || p.RetryAfter != 30*time.Second || err.Error() != "too many failed attempts" {
		t.Fatalf("%#v", err)
	}
	if !p.Temporary() || !api.IsUnreachable(err) || !api.IsCode(err, api.CodeTooManyAttempts) {
		t.Errorf("%v is not temporary, or has another code", err)
	}
	// A proxy answers something else.
	c = clientOf(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<html>", http.StatusNotFound) })
	_, err = c.Users(t.Context())
	if !errors.As(err, &p) || p.Status != 404 || err.Error() != "404 Not Found" || p.Temporary() {
		t.Errorf("%#v", err)
	}
}

func TestNoAnswerIsUnreachable(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "{") // and no more
	}))
	c := &api.Client{BaseURL: s.URL + "/"}
	if _, err := c.Node(t.Context(), "n"); !errors.Is(err, api.ErrUnreachable) || !api.IsUnreachable(err) {
		t.Errorf("half an answer: %v", err)
	}
	s.Close()
	if _, err := c.Node(t.Context(), "n"); !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("no server: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Node(ctx, "n"); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ended: %v", err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	c := clientOf(func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 64<<20+1))
	})
	if _, err := c.Node(t.Context(), "n"); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
}

func TestAllNodesReadsEveryPage(t *testing.T) {
	t.Parallel()
	var queries []string
	c := clientOf(func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		switch r.URL.Query().Get("after") {
		case "":
			fmt.Fprint(w, `{"nodes":[{"id":"a"},{"id":"b"}],"next":"b"}`)
		default:
			fmt.Fprint(w, `{"nodes":[{"id":"c"}]}`)
		}
	})
	nodes, err := c.AllNodes(t.Context(), api.NodeQuery{IDPrefix: "x", Removed: true})
	if err != nil || len(nodes) != 3 || nodes[2].ID != "c" {
		t.Fatalf("%+v, %v", nodes, err)
	}
	if want := []string{"id_prefix=x&limit=1000&removed=true", "after=b&id_prefix=x&limit=1000&removed=true"}; !slices.Equal(queries, want) {
		t.Errorf("%q", queries)
	}
	c = clientOf(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"nodes":[],"next":"b"}`) })
	if _, err := c.AllNodes(t.Context(), api.NodeQuery{}); err == nil {
		t.Error("a list without an end was read")
	}
}

func TestContextReachesTheHandlerInProcess(t *testing.T) {
	t.Parallel()
	type key struct{}
	c := clientOf(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(key{}) != "me" || r.RemoteAddr != "" {
			t.Errorf("value %v, address %q", r.Context().Value(key{}), r.RemoteAddr)
		}
		if b, err := io.ReadAll(r.Body); len(b) > 0 || err != nil {
			t.Errorf("body %q, %v", b, err)
		}
		fmt.Fprint(w, `{"groups":[{"name":"g"}]}`)
	})
	gs, err := c.Groups(context.WithValue(t.Context(), key{}, "me"))
	if err != nil || len(gs) != 1 || gs[0].Name != "g" {
		t.Errorf("%v, %v", gs, err)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{"progress":{"bytes_done":5,"bytes_total":10}}`: true, `{"progress":{"bytes_done":-5,"bytes_total":10}}`: false,
		`{"progress":{"bytes_done":5}}`: false, `{}`: false, ``: false, `{"progress":7}`: false,
	} {
		done, total, ok := (api.Node{Upgrade: json.RawMessage(text)}).Progress()
		if ok != want || ok && (done != 5 || total != 10) {
			t.Errorf("%s: %d of %d, %v", text, done, total, ok)
		}
	}
}

func TestRolesIncludeTheOnesBefore(t *testing.T) {
	t.Parallel()
	for i, r := range api.Roles() {
		for k, least := range api.Roles() {
			if r.Includes(least) != (i >= k) {
				t.Errorf("%s includes %s: %v", r, least, r.Includes(least))
			}
		}
		if api.Role("").Includes(r) || api.Role("root").Includes(r) {
			t.Errorf("an unknown role includes %s", r)
		}
	}
}

// A manager whose pages name each other in turn is no list without end, and an URL that
// is not one is not quoted: it may have a password.
func TestListsThatDoNotEnd(t *testing.T) {
	t.Parallel()
	pages := 0
	_, err := clientOf(func(w http.ResponseWriter, r *http.Request) {
		pages++
		fmt.Fprintf(w, `{"nodes":[],"next":%q}`, map[string]string{"": "a", "a": "b", "b": "a"}[r.URL.Query().Get("after")])
	}).AllNodes(t.Context(), api.NodeQuery{})
	if err == nil || !strings.Contains(err.Error(), "does not end") || pages != 3 {
		t.Errorf("after %d pages: %v", pages, err)
	}
	c := api.Client{BaseURL: "https://u:hunter2@host:port"}
	if err := c.Call(t.Context(), "GET", "/x", nil, nil); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
