package probe_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/probe"
)

func TestProbe(t *testing.T) {
	t.Parallel()
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/well":
		case "/moved":
			http.Redirect(w, r, "/well", http.StatusFound)
		case "/hangs":
			<-r.Context().Done()
		default:
			http.Error(w, "ill", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(host.Close)
	for name, tt := range map[string]struct {
		h    config.Health
		want string
	}{
		"nothing to ask":      {config.Health{}, ""},
		"http well":           {config.Health{HTTP: host.URL + "/well"}, ""},
		"http ill":            {config.Health{HTTP: host.URL + "/ill"}, "answers 503"},
		"a redirect":          {config.Health{HTTP: host.URL + "/moved"}, "answers 302"},
		"http hangs":          {config.Health{HTTP: host.URL + "/hangs", TimeoutSecs: 1}, "no answer within 1 s"},
		"nobody listens":      {config.Health{HTTP: "http://127.0.0.1:1/"}, "refused"},
		"command well":        {config.Health{Command: []string{"/bin/true"}}, ""},
		"command ill":         {config.Health{Command: []string{"/bin/sh", "-c", "printf 'the\\ndatabase is away' >&2; exit 3"}}, "exit status 3: the database is away"},
		"command hangs":       {config.Health{Command: []string{"/bin/sleep", "60"}, TimeoutSecs: 1}, "no answer within 1 s"},
		"no such command":     {config.Health{Command: []string{"/no/such"}}, "no such file"},
		"well and ill":        {config.Health{HTTP: host.URL + "/well", Command: []string{"/bin/false"}}, "exit status 1"},
		"without our secrets": {config.Health{Command: []string{"/bin/sh", "-c", `test -z "$NOTIFY_SOCKET$HOME"`}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config.Config{Service: config.Service{DeviceType: "edge"}, Manager: config.Manager{URLs: []string{"wss://m"}}, Health: tt.h}
			checked, err := c.Resolve()
			if err != nil {
				t.Fatal(err)
			}
			err = probe.Run(t.Context(), checked.Health, nil)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
