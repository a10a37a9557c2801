package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/bilbycast/edge-agent/internal/state"
)

// healthFile writes a config.toml with a line of [health], whose install root is root.
func healthFile(t *testing.T, root, line string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	text := "[service]\ndevice_type = \"edge\"\ninstall_root = \"" + root + "\"\n[manager]\nurls = [\"wss://m\"]\n[health]\n" + line + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A dependency is the text of a URL, or the list of a command.
func TestADependencyIsAURLOrACommand(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		``: "",
		`dependency = "http://127.0.0.1:5432/up?x=1"`:   "http://127.0.0.1:5432/up?x=1",
		`dependency = "https://db.example/"`:            "https://db.example/",
		`dependency = ["/usr/bin/pg_isready", "-q"]`:    "/usr/bin/pg_isready -q",
		`dependency = ["/bin/sh", "-c", "nc -z db 80"]`: "/bin/sh -c nc -z db 80",
		`dependency = []`: "",
	} {
		s, err := Read(healthFile(t, "/opt/x", line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		d := s.Health.Dependency
		if got := strings.Join(slices.Concat([]string{d.URL()}, d.Command()), " "); strings.TrimSpace(got) != want || d.Set() != (want != "") || d.URL() != "" && d.Command() != nil {
			t.Errorf("%s: URL %q, command %q, set %t", line, d.URL(), d.Command(), d.Set())
		}
	}
}

// A dependency has the rules of http and of command, and no error quotes a secret.
func TestRulesOfADependency(t *testing.T) {
	t.Parallel()
	const form = `health.dependency must be a URL in quotes, or a program and its arguments like ["/a", "b"]`
	for line, want := range map[string]string{
		`dependency = "ftp://db/"`:               `health.dependency "ftp://db/" is not like http://127.0.0.1:8080/healthz`,
		`dependency = "http://u:hunter2@db/"`:    `health.dependency "http://...@db/" is not like`,
		`dependency = "http:///up"`:              "is not like",
		`dependency = "/bin/check -p hunter2"`:   form,
		`dependency = "db:5432"`:                 form,
		`dependency = ""`:                        form,
		`dependency = 5`:                         form,
		`dependency = true`:                      form,
		`dependency = [1]`:                       form,
		`dependency = { url = "http://db" }`:     form,
		`dependency = ["pg_isready"]`:            `health.dependency begins with "pg_isready", which is not the absolute path of a program`,
		`dependency = [""]`:                      `health.dependency begins with ""`,
		`dependency = ["curl", "-u", "hunter2"]`: "absolute path",
		`dependancy = "http://db"`:               "did you mean health.dependency?",
	} {
		_, err := Read(healthFile(t, "/opt/x", line))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// A version on trial must not answer for its own dependency.
func TestADependencyIsOfNoVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, link, version := filepath.Join(dir, "root"), filepath.Join(dir, "link"), filepath.Join(dir, "root", "versions", "1.0.0")
	outside := filepath.Join(dir, "outside")
	for _, d := range []string{version, outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{link: "root", filepath.Join(root, "current"): "versions/1.0.0", filepath.Join(outside, "check"): "../root/current/check"} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(version, "check"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{root, link} {
		for _, tt := range []struct {
			args []string
			bad  bool
		}{
			{[]string{root + "/current/check"}, true},
			{[]string{root + "/current"}, true},
			{[]string{root + "/last-good/check"}, true},
			{[]string{root + "/previous/no/such"}, true},
			{[]string{root + "/versions/2.0.0/check"}, true},
			{[]string{root + "//x/../current/./check"}, true},
			{[]string{dir + "/root/current/no-such"}, true},
			{[]string{dir + "/link/versions/1.0.0/no-such"}, true},
			{[]string{outside + "/check"}, true},
			{[]string{"/bin/sh", root + "/current/check"}, true},
			{[]string{"/bin/sh", "-c", "exec " + root + "/current/check"}, true},
			{[]string{"/bin/curl", "--config=" + root + "/current/check"}, true},
			{[]string{outside + "/other", "current", "versions"}, false},
			{[]string{root + "/checks/database"}, false},
			{[]string{root + "/current-check"}, false},
			{[]string{"/bin/true", "--", "/"}, false},
		} {
			c := valid(t)
			c.Service.InstallRoot, c.Health.Dependency = root, tt.args
			_, err := c.Resolve()
			if (err != nil) != tt.bad || err != nil && !strings.Contains(err.Error(), "could then answer for its own dependency; use a program and files outside "+root) {
				t.Errorf("%q with the root %s: %v", tt.args, root, err)
			}
			c.Health.Dependency, c.Health.Command = nil, tt.args
			if _, err := c.Resolve(); err != nil {
				t.Errorf("the check may be of the version: %v", err)
			}
		}
	}
}

// Whatever a file says, a dependency that passes the rules is one thing: nothing, a URL, or
// a program by an absolute path.
func FuzzDependency(f *testing.F) {
	for _, s := range []string{`"http://127.0.0.1/up"`, `["/bin/true", "-q"]`, `[]`, `""`, `5`, `["http://x"]`, `["/opt/x/current/check"]`, `"https://u:p@h"`, `[["a"]]`} {
		f.Add(s)
	}
	l, err := state.At("/opt/x")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		var h Health
		if toml.Unmarshal([]byte("dependency = "+value), &h) != nil || h.resolve(l) != nil {
			return
		}
		d := h.Dependency
		url, args := d.URL() != "", len(d.Command()) > 0
		if url && args || d.Set() != (url || args) || args && !filepath.IsAbs(d.Command()[0]) || args && ofAVersion(l, d.Command()[0]) {
			t.Errorf("%q is %q", value, d)
		}
	})
}
