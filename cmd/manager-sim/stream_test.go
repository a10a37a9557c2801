package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/spf13/cobra"
)

// streamer returns a client of a manager whose stream a test writes.
func streamer(t *testing.T, stream http.HandlerFunc) (*client, *cobra.Command) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/events", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"events":[{"seq":7}]}`) })
	mux.HandleFunc("GET /api/v1/events/stream", stream)
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	dir, _ := dataDir(t, s.URL)
	cmd := &cobra.Command{}
	cmd.SetErr(new(bytes.Buffer))
	return &client{dir: dir, Client: &api.Client{BaseURL: s.URL, HTTP: s.Client(), Token: testAdmin}}, cmd
}

func listening(w http.ResponseWriter, more string) {
	fmt.Fprint(w, ": listening\n\n"+more)
	w.(http.Flusher).Flush()
}

// After the end of a stream, follow continues after the last event and checks the
// state. It calls begin once.
func TestFollowOutlivesTheStream(t *testing.T) {
	t.Parallel()
	var since []string
	n := 0
	c, cmd := streamer(t, func(w http.ResponseWriter, r *http.Request) {
		since = append(since, r.Header.Get("Last-Event-Id"))
		switch n++; n {
		case 1:
			listening(w, "id: 8\ndata: {\"type\":\"event\",\"seq\":8}\n\ndata: nonsense\n\n")
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 3:
			listening(w, "id: 9\ndata: "+strings.Repeat("x", 3<<20)+"\n\ndata: {\"type\":\"event\",\"seq\":10}\n\n")
		default:
			listening(w, "")
			<-r.Context().Done()
		}
	})
	begun, checks, seqs := 0, 0, []int64{}
	err := c.follow(cmd, t.Context(), &watch{
		begin:  func() error { begun++; return nil },
		record: func(r api.Record) (bool, error) { seqs = append(seqs, r.Seq); return false, nil },
		check:  func() (bool, error) { checks++; return n == 4, nil },
	})
	if err != nil || begun != 1 || checks != 3 || !slices.Equal(seqs, []int64{8, 10}) || !slices.Equal(since, []string{"7", "8", "8", "10"}) {
		t.Errorf("%v; begun %d, checks %d, records %v, streams since %q", err, begun, checks, seqs, since)
	}
}

// A manager that answers without news is not silent. A refusal ends the waiting.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	c, cmd := streamer(t, func(w http.ResponseWriter, r *http.Request) {
		listening(w, "")
		<-r.Context().Done()
	})
	ctx, cancel := deadline(t.Context(), 300*time.Millisecond)
	defer cancel()
	w := &watch{begin: func() error { return nil }, check: func() (bool, error) { return false, nil }, every: 20 * time.Millisecond}
	if err := c.follow(cmd, ctx, w); !errors.Is(err, errTimeout) || w.silent() {
		t.Errorf("%v, silent: %t", err, w.silent())
	}
	var asked atomic.Int64
	c, cmd = streamer(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			listening(w, "")
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	})
	err := c.follow(cmd, t.Context(), &watch{begin: func() error { return nil }})
	if p := new(api.Problem); !errors.As(err, &p) || p.Status != http.StatusUnauthorized {
		t.Errorf("a token that was revoked: %v", err)
	}
}
