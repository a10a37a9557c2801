package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The directories that links in a root point to must be writable, and so must its own
// directories, even if the root itself is.
func TestLinkedDirectoriesAreWritable(t *testing.T) {
	t.Parallel()
	dir := resolve(t.TempDir())
	root := filepath.Join(dir, "root")
	for _, d := range []string{"root/outbox", "v", "d"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"versions": dir + "/v", "downloads": dir + "/d", "trust": dir + "/missing"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		lines string
		want  []string // parts of cause and remedy, one problem each
	}{
		{"ReadWritePaths=" + root + " " + dir + "/v -" + dir + "/d", nil},
		{"ReadWritePaths=" + dir, nil},
		{"ProtectSystem=full\nReadWritePaths=", nil},
		{"ReadWritePaths=" + root + " " + dir + "/d", []string{dir + "/v, to which " + root + "/versions is a link (ProtectSystem=strict, and ReadWritePaths= does not name it)|write the unit again: edge-agent unit"}},
		{"ReadWritePaths=" + root, []string{dir + "/v, |write the unit again", dir + "/d, |write the unit again"}},
		{"ReadWritePaths=" + dir + "\nReadOnlyPaths=" + dir + "/d", []string{dir + "/d, |remove " + dir + "/d from ReadOnlyPaths="}},
		{"ReadWritePaths=" + dir + "\nInaccessiblePaths=-" + root + "/outbox", []string{root + "/outbox (InaccessiblePaths=|remove " + root + "/outbox from InaccessiblePaths="}},
		{"ReadWritePaths=" + dir + "\nReadOnlyPaths=" + root + "/versions", []string{dir + "/v, |remove " + dir + "/v from ReadOnlyPaths="}},
		{"ProtectSystem=no\nReadWritePaths=\nReadOnlyPaths=" + dir, []string{root + " (ReadOnlyPaths=" + dir + ")|remove " + dir + " from ReadOnlyPaths="}},
		{"ReadWritePaths=" + dir + "\nNoExecPaths=/\nExecPaths=" + root, []string{root + "/versions|add ExecPaths=" + root + "/versions"}},
		{"ReadWritePaths=" + dir + "\nNoExecPaths=/\nExecPaths=" + root + " " + dir + "/v", nil},
	} {
		p := properties(replaceLines(shownGood(root, who(t)), tt.lines))
		problems := unit{Service: Service{Unit: "edge.service", Layout: at(t, root)}, kind: linked, real: root, p: p}.checkWritable()
		for i, problem := range problems {
			if i >= len(tt.want) {
				t.Errorf("%s: %+v", tt.lines, problem)
				continue
			}
			cause, remedy, _ := strings.Cut(tt.want[i], "|")
			if !strings.Contains(problem.Cause, cause) || !strings.HasPrefix(problem.Remedy, remedy) || !problem.Rollback {
				t.Errorf("%s: %+v, want %s", tt.lines, problem, tt.want[i])
			}
		}
		if len(problems) < len(tt.want) {
			t.Errorf("%s: %d problems, want %d", tt.lines, len(problems), len(tt.want))
		}
	}
}
