package agent

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
		h    HealthConfig
		want string
	}{
		"nothing to ask":      {HealthConfig{}, ""},
		"http well":           {HealthConfig{HTTP: host.URL + "/well"}, ""},
		"http ill":            {HealthConfig{HTTP: host.URL + "/ill"}, "answers 503"},
		"a redirect":          {HealthConfig{HTTP: host.URL + "/moved"}, "answers 302"},
		"http hangs":          {HealthConfig{HTTP: host.URL + "/hangs", TimeoutSecs: 1}, "no answer within 1 s"},
		"nobody listens":      {HealthConfig{HTTP: "http://127.0.0.1:1/"}, "refused"},
		"command well":        {HealthConfig{Command: []string{"/bin/true"}}, ""},
		"command ill":         {HealthConfig{Command: []string{"/bin/sh", "-c", "printf 'the\\ndatabase is away' >&2; exit 3"}}, "exit status 3: the database is away"},
		"command hangs":       {HealthConfig{Command: []string{"/bin/sleep", "60"}, TimeoutSecs: 1}, "no answer within 1 s"},
		"no such command":     {HealthConfig{Command: []string{"/no/such"}}, "no such file"},
		"well and ill":        {HealthConfig{HTTP: host.URL + "/well", Command: []string{"/bin/false"}}, "exit status 1"},
		"without our secrets": {HealthConfig{Command: []string{"/bin/sh", "-c", `test -z "$NOTIFY_SOCKET$HOME"`}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tt.h.resolve(); err != nil {
				t.Fatal(err)
			}
			err := tt.h.probe(t.Context())
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
