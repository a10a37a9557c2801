package api_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

func TestStream(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Last-Event-ID") != "7" || r.Header.Get("Accept") != "text/event-stream" {
			t.Errorf("headers %v", r.Header)
		}
		io.WriteString(w, ": listening\n\n")
		io.WriteString(w, "id: 8\ndata: {\"type\":\"event\",\"seq\":8,\"node_id\":\"n\",\"message\":\"hello\",\"details\":{\"a\":1}}\n\n")
		io.WriteString(w, "data: "+strings.Repeat("x", 2<<20)+"\n\n") // too long
		io.WriteString(w, "data: no JSON\r\n\n:\n\n")
		io.WriteString(w, "data: {\"type\":\"rollout\",\"rollout_id\":\"r\",\"wave\":2,\"status\":\"paused\"}\n\n")
	}))
	defer s.Close()
	stream, err := (&api.Client{BaseURL: s.URL}).Stream(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	want := []string{"", api.RecordEvent, "", api.RecordRollout}
	var last api.Record
	for _, kind := range want {
		r, err := stream.Next()
		if err != nil || r.Type != kind {
			t.Fatalf("%+v, %v; want the type %q", r, err, kind)
		}
		if kind == api.RecordEvent && (r.Seq != 8 || r.Message != "hello" || !strings.Contains(string(r.Raw), `"details":{"a":1}`)) {
			t.Errorf("%+v", r)
		}
		last = r
	}
	if last.RolloutID != "r" || last.Wave != 2 || last.Status != "paused" {
		t.Errorf("%+v", last)
	}
	if _, err := stream.Next(); !errors.Is(err, api.ErrUnreachable) || !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
}

func TestStreamIsRefused(t *testing.T) {
	t.Parallel()
	c := clientOf(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) })
	if _, err := c.Stream(t.Context(), 0); !errors.As(err, new(*api.Problem)) {
		t.Errorf("%v", err)
	}
}
