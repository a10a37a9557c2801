package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// hostile has everything with which a node or a manager could attack a terminal: the
// clipboard (OSC 52), colours and erased lines (CSI, in 7 and 8 bits), a forged line, a
// change of the writing direction, a carriage return, and invalid UTF-8.
const hostile = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2K\x1b[31mc\u009b2Jd\nmanager-sim: all is well\re\u202ef\u2066g\u200bh\x00i\x7fj\tk"

// validTime is the only text that hostileTree keeps.
const validTime = "2026-01-01T00:00:00Z"

// hostileTree returns v with every text replaced by the hostile one.
func hostileTree(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = hostileTree(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = hostileTree(e)
		}
		return out
	case string:
		if v == validTime {
			return v // the client accepts no other text as a time
		}
		return hostile
	}
	return v
}

// everyField returns a value of T's JSON with every field set, so that no field is
// forgotten.
func everyField(t reflect.Type) any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return validTime
	case reflect.TypeFor[json.RawMessage]():
		return map[string]any{"text": "x"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return everyField(t.Elem())
	case reflect.Struct:
		out := map[string]any{}
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			out[name] = everyField(t.Field(i).Type)
		}
		return out
	case reflect.Slice:
		return []any{everyField(t.Elem())}
	case reflect.Map:
		return map[string]any{"failed": everyField(t.Elem()), hostile: everyField(t.Elem())}
	case reflect.String:
		return "x"
	case reflect.Bool:
		return false
	}
	return 1
}

// hostileManager answers every call with hostile texts.
func hostileManager(t *testing.T) (dir string) {
	t.Helper()
	const id = "1e8821f6-0acc-4a65-a661-589910968e57"
	tree := func(v any, set map[string]any) any {
		m := hostileTree(everyField(reflect.TypeOf(v))).(map[string]any)
		for k, e := range set {
			m[k] = e
		}
		return m
	}
	node := tree(api.Node{}, map[string]any{"id": id, "command_id": "c1", "upgrade_state": "failed"})
	rollout := tree(api.Rollout{}, map[string]any{"id": id, "status": "paused"})
	event := tree(api.Record{}, map[string]any{"node_id": hostile, "type": "event", "command_id": "c1"})
	group := tree(api.Group{}, nil)
	one := tree(api.Group{}, map[string]any{"id": "g", "name": "g"})
	plan := map[string]any{"rollout_id": hostile, "node_count": 1, "offline": 1, "waves": [][]string{{hostile}}, "left_out": []any{map[string]string{"node_id": hostile, "reason": hostile}}}
	reply := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
	mux := http.NewServeMux()
	for path, v := range map[string]any{
		"GET /api/v1/nodes":                map[string]any{"nodes": []any{node}},
		"GET /api/v1/nodes/{id}":           node,
		"POST /api/v1/nodes/{id}/resolve":  node,
		"POST /api/v1/nodes/{id}/upgrade":  map[string]any{"command_id": "c1"},
		"GET /api/v1/events":               map[string]any{"events": []any{event}},
		"GET /api/v1/groups":               map[string]any{"groups": []any{group, one}},
		"GET /api/v1/tokens":               map[string]any{"tokens": []any{tree(api.Token{}, nil)}},
		"GET /api/v1/pending-nodes":        map[string]any{"nodes": []any{tree(api.PendingNode{}, nil)}},
		"GET /api/v1/rollouts":             map[string]any{"rollouts": []any{rollout}},
		"GET /api/v1/rollouts/{id}":        rollout,
		"POST /api/v1/groups/{id}/upgrade": plan,
		"POST /api/v1/rollouts/{id}/pause": rollout,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { reply(w, v) })
	}
	mux.HandleFunc("GET /api/v1/events/stream", func(w http.ResponseWriter, r *http.Request) {
		b, _ := json.Marshal(event)
		fmt.Fprintf(w, ": listening\n\ndata: %s\n\n", b)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("POST /api/v1/rollouts/{id}/abort", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		reply(w, map[string]string{"detail": hostile, "code": hostile})
	})
	s := httptest.NewUnstartedServer(mux)
	dir, cert := dataDir(t, "https://"+s.Listener.Addr().String())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return dir
}

// Every command cleans the texts of nodes and managers, and none of them begins a line.
func TestForeignTextsAreHarmlessOnATerminal(t *testing.T) {
	t.Parallel()
	dir := hostileManager(t)
	for _, args := range [][]string{
		{"nodes"}, {"nodes", "--removed"}, {"node", "show", "1e8821f6"}, {"node", "resolve", "1e8821f6"},
		{"upgrade", "1e8821f6", "1.1.0"}, {"upgrade", "1e8821f6", "1.1.0", "--wait"},
		{"events"}, {"events", "--node", "1e8821f6"},
		{"token", "list"}, {"node", "pending"},
		{"rollout", "list"}, {"rollout", "show", "1e8821f6"}, {"rollout", "pause", "1e8821f6"}, {"rollout", "abort", "1e8821f6"},
		{"rollout", "start", "g", "1.1.0"}, {"rollout", "start", "nowhere", "1.1.0"}, {"rollout", "start", "g", "1.1.0", "--wait", "--timeout", "2s"},
	} {
		out, errs, _ := runIn(t, dir, args...)
		if !strings.Contains(out+errs, "a?]52;c;ZXZpbA==?b?[2K") && args[0] != "upgrade" {
			t.Errorf("%q does not show the text, so this tests nothing:\n%s%s", args, out, errs)
		}
		for line := range strings.Lines(out + errs) {
			text := strings.TrimSuffix(line, "\n")
			if i := strings.IndexFunc(text, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("%q prints %q", args, text)
			}
			if strings.HasPrefix(text, "manager-sim: all is well") {
				t.Errorf("%q lets a text of another begin a line: %q", args, text)
			}
		}
	}
}

// node show has a line for each warning of the node.
func TestNodeShowHasWarnings(t *testing.T) {
	t.Parallel()
	out, errs, code := runIn(t, hostileManager(t), "node", "show", "1e8821f6")
	if code != cli.OK || !strings.Contains(out, "\nwarning ") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

// With --json a text is not changed.
func TestForeignTextsInJSON(t *testing.T) {
	t.Parallel()
	dir := hostileManager(t)
	for _, args := range [][]string{{"nodes"}, {"node", "show", "1e8821f6"}, {"events"}, {"rollout", "list"}, {"rollout", "show", "1e8821f6"}} {
		out, errs, code := runIn(t, dir, append(args, "--json")...)
		if code != cli.OK {
			t.Fatalf("%q: %d %s", args, code, errs)
		}
		var v any
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if !strings.Contains(fmt.Sprint(v), hostile) {
			t.Errorf("%q changes the text: %s", args, out)
		}
	}
}

// The records of the event stream are cleaned, too.
func TestForeignTextsWhileFollowing(t *testing.T) {
	t.Parallel()
	dir := hostileManager(t)
	ctx, cancel := newLineContext(t)
	out := &lineWriter{cancel: cancel, after: 2} // the list, and the stream
	if code := run(ctx, []string{"events", "--follow", "--dir", dir}, out, out); code != cli.OK {
		t.Errorf("exit code %d: %s", code, out.text())
	}
	if text := out.text(); strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) || strings.Count(text, "\n") != 2 {
		t.Errorf("it prints %q", text)
	}
}
