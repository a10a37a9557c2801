package probe_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/probe"
	"github.com/bilbycast/edge-agent/trial"
)

// host answers with the status that its path names, in the words of the path.
func host(t *testing.T) string {
	t.Helper()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hangs" {
			<-r.Context().Done()
			return
		}
		status, words, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		code, err := strconv.Atoi(status)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, words)
	}))
	t.Cleanup(h.Close)
	return h.URL
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

// Every kind of answer, and of question that could not be asked.
func TestWhatAnAnswerSays(t *testing.T) {
	t.Parallel()
	url := host(t)
	notExecutable := filepath.Join(t.TempDir(), "check")
	noInterpreter := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(notExecutable, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(noInterpreter, []byte("#!/no/such\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		h     config.Health
		own   trial.Own
		words string
	}{
		"nothing to ask":           {config.Health{}, trial.Passes, ""},
		"200":                      {config.Health{HTTP: url + "/200"}, trial.Passes, ""},
		"204":                      {config.Health{HTTP: url + "/204"}, trial.Passes, ""},
		"304":                      {config.Health{HTTP: url + "/304"}, trial.Fails, "answers 304"},
		"404":                      {config.Health{HTTP: url + "/404/no such page"}, trial.Fails, "answers 404 Not Found: no such page"},
		"500":                      {config.Health{HTTP: url + "/500/the%0Acache%1B[31m is gone"}, trial.Fails, "500 Internal Server Error: the cache?[31m is gone"},
		"424":                      {config.Health{HTTP: url + "/424/the database is away"}, trial.CannotTell, "health.http: " + url + "/424/the database is away answers 424 Failed Dependency: the database is away"},
		"424 without words":        {config.Health{HTTP: url + "/424"}, trial.CannotTell, "answers 424 Failed Dependency"},
		"no answer":                {config.Health{HTTP: url + "/hangs", TimeoutSecs: 1}, trial.Fails, "no answer within 1 s"},
		"refused":                  {config.Health{HTTP: "http://127.0.0.1:1/"}, trial.Fails, "connection refused"},
		"no such host":             {config.Health{HTTP: "http://app.invalid/"}, trial.NotRun, "app.invalid"},
		"exit 0":                   {config.Health{Command: sh("exit 0")}, trial.Passes, ""},
		"exit 0, leaves a process": {config.Health{Command: sh("sleep 3 & exit 0")}, trial.Passes, ""},
		"exit 1":                   {config.Health{Command: sh("echo no cache; exit 1")}, trial.Fails, "health.command: exit status 1: no cache"},
		"exit 75":                  {config.Health{Command: sh("echo the database is away; exit 75")}, trial.CannotTell, "health.command: exit status 75: the database is away"},
		"exit 126":                 {config.Health{Command: sh("exit 126")}, trial.Fails, "exit status 126"},
		"exit 127":                 {config.Health{Command: sh("/no/such")}, trial.Fails, "exit status 127"},
		"a signal":                 {config.Health{Command: sh("kill -SEGV $$")}, trial.Fails, "signal: segmentation fault"},
		"command hangs":            {config.Health{Command: []string{"/bin/sleep", "60"}, TimeoutSecs: 1}, trial.Fails, "no answer within 1 s"},
		"missing":                  {config.Health{Command: []string{"/no/such"}}, trial.NotRun, "no such file"},
		"a directory":              {config.Health{Command: []string{"/"}}, trial.NotRun, "is a directory"},
		"not executable":           {config.Health{Command: []string{notExecutable}}, trial.NotRun, "permission denied"},
		"no interpreter":           {config.Health{Command: []string{noInterpreter}}, trial.NotRun, "no such file"},
		"a NUL byte":               {config.Health{Command: []string{"/bin/true", "\x00"}}, trial.NotRun, "invalid argument"},
		"both pass":                {config.Health{HTTP: url + "/200", Command: sh("exit 0")}, trial.Passes, ""},
		"well, not run":            {config.Health{HTTP: url + "/200", Command: []string{"/no/such"}}, trial.NotRun, "health.command"},
		"cannot tell, not run":     {config.Health{HTTP: url + "/424", Command: []string{"/no/such"}}, trial.CannotTell, "health.http"},
		"well, cannot tell":        {config.Health{HTTP: url + "/200", Command: sh("exit 75")}, trial.CannotTell, "health.command"},
		"cannot tell, well":        {config.Health{HTTP: url + "/424", Command: sh("exit 0")}, trial.CannotTell, "health.http"},
		"cannot tell, fails":       {config.Health{HTTP: url + "/424", Command: sh("exit 3")}, trial.Fails, "health.command"},
		"fails, cannot tell":       {config.Health{HTTP: url + "/503", Command: sh("exit 75")}, trial.Fails, "health.http"},
		"fails, not run":           {config.Health{HTTP: url + "/503", Command: []string{"/no/such"}}, trial.Fails, "health.http"},
		"hangs, fails":             {config.Health{HTTP: url + "/hangs", Command: sh("exit 3"), TimeoutSecs: 1}, trial.Fails, "health"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.h.TimeoutSecs == 0 {
				tt.h.TimeoutSecs = 9
			}
			own, err := probe.Ask(t.Context(), tt.h, nil)
			if own != tt.own || (err == nil) != (tt.own == trial.Passes) || err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Errorf("%s, %v; want %s, %q", own, err, tt.own, tt.words)
			}
			swapErr := probe.BeforeSwap(t.Context(), tt.h, nil)
			if (swapErr == nil) != (tt.own == trial.Passes || tt.own == trial.NotRun) || (own == trial.CannotTell) != (swapErr != nil && strings.Contains(swapErr.Error(), "cannot tell")) {
				t.Errorf("before a swap: %v", swapErr)
			}
			if runErr := probe.Run(t.Context(), tt.h, nil); (runErr == nil) != (err == nil) {
				t.Errorf("Run returns %v", runErr)
			}
		})
	}
}

// The words of a check are bounded: the first of an answer, the last of a command.
func TestLongWordsOfACheck(t *testing.T) {
	t.Parallel()
	h := config.Health{HTTP: host(t) + "/500/" + strings.Repeat("a", 9000), TimeoutSecs: 9}
	if _, err := probe.Ask(t.Context(), h, nil); len(err.Error()) > len(h.HTTP)+300 {
		t.Errorf("%d bytes", len(err.Error()))
	}
	h = config.Health{Command: sh("yes | head -c 9000000; echo the end; exit 1"), TimeoutSecs: 9}
	if _, err := probe.Ask(t.Context(), h, nil); len(err.Error()) > 300 || !strings.HasSuffix(err.Error(), "the end") {
		t.Errorf("%v", err)
	}
}

// An agent that ends did not ask, whatever the check was about to say.
func TestAnAgentThatEndsDidNotAsk(t *testing.T) {
	t.Parallel()
	for _, h := range []config.Health{
		{HTTP: host(t) + "/hangs", TimeoutSecs: 9},
		{Command: []string{"/bin/sleep", "60"}, TimeoutSecs: 9},
		{HTTP: host(t) + "/503", TimeoutSecs: 9},
		{TimeoutSecs: 9},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if own, err := probe.Ask(ctx, h, nil); own != trial.NotRun || err == nil {
			t.Errorf("%+v: %s, %v", h, own, err)
		}
		if probe.BeforeSwap(ctx, h, nil) == nil {
			t.Errorf("%+v: the swap was allowed", h)
		}
	}
}

// An agent that has no file, or process, to spare did not ask.
func TestAnAgentWithoutFilesDidNotAsk(t *testing.T) {
	t.Parallel()
	const child = "PROBE_WITHOUT_FILES"
	url := os.Getenv(child)
	if url == "" {
		url = host(t)
		// Not in the child: the file of this connection may be free again at any later moment.
		if own, err := probe.Ask(t.Context(), config.Health{HTTP: url + "/200", TimeoutSecs: 9}, nil); own != trial.Passes {
			t.Fatal(own, err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), child+"="+url)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	named := strings.Replace(url, "127.0.0.1", "localhost", 1)
	checks := []config.Health{
		{HTTP: url + "/200", TimeoutSecs: 9}, {HTTP: named + "/200", TimeoutSecs: 9}, {Command: sh("exit 0"), TimeoutSecs: 9},
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
		t.Fatal(err)
	}
	var full []*os.File
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			break
		}
		full = append(full, f)
	}
	var got []string
	for _, h := range checks {
		own, err := probe.Ask(t.Context(), h, nil)
		got = append(got, fmt.Sprint(own, " ", err))
	}
	for _, f := range full {
		f.Close()
	}
	for _, g := range got {
		if !strings.HasPrefix(g, string(trial.NotRun)) {
			t.Error(g)
		}
	}
}

// A dependency is there if it answers, and only then.
func TestDependency(t *testing.T) {
	t.Parallel()
	url := host(t)
	for name, tt := range map[string]struct {
		d     config.Dependency
		words string
	}{
		"none":      {nil, ""},
		"200":       {config.Dependency{url + "/200"}, ""},
		"302":       {config.Dependency{url + "/302"}, "health.dependency: " + url + "/302 answers 302"},
		"424":       {config.Dependency{url + "/424"}, "answers 424"},
		"no answer": {config.Dependency{url + "/hangs"}, "health.dependency: no answer within 1 s (health.timeout_secs)"},
		"refused":   {config.Dependency{"http://127.0.0.1:1/"}, "connection refused"},
		"exit 0":    {sh("exit 0"), ""},
		"exit 75":   {sh("echo no route; exit 75"), "health.dependency: exit status 75: no route"},
		"missing":   {config.Dependency{"/no/such"}, "no such file"},
		"hangs":     {config.Dependency{"/bin/sleep", "60"}, "no answer within 1 s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The check itself is not asked.
			h := config.Health{HTTP: "http://127.0.0.1:1/", Dependency: tt.d, TimeoutSecs: 9}
			if strings.Contains(tt.words, "within 1 s") {
				h.TimeoutSecs = 1
			}
			err := probe.Dependency(t.Context(), h, nil)
			if (err == nil) != (tt.words == "") || err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Errorf("%v, want %q", err, tt.words)
			}
			if own, _ := probe.Ask(t.Context(), config.Health{Dependency: tt.d, TimeoutSecs: 9}, nil); own != trial.Passes {
				t.Errorf("the dependency is asked as a check: %s", own)
			}
		})
	}
}
