package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// readmeBlocks returns the blocks of commands of a section of README.md.
func readmeBlocks(t *testing.T, section string) [][]string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n## "+section+"\n")
	if !ok {
		t.Fatalf("README.md has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var blocks [][]string
	inside := false
	for line := range strings.Lines(text) {
		command, ok := strings.CutPrefix(line, "    ")
		switch {
		case !ok:
			inside = false
			continue
		case !inside:
			blocks = append(blocks, nil)
		}
		inside = true
		blocks[len(blocks)-1] = append(blocks[len(blocks)-1], strings.TrimSpace(command))
	}
	return blocks
}

// copyRepository copies the sources to a new directory.
func copyRepository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel("../..", path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "bin", "dist", defaultDir, "docs/img"}, name) {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(dir, name), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// shell runs commands as a reader of README.md does.
type shell struct {
	t   *testing.T
	dir string
}

// untilInterrupted marks a command that only Ctrl-C ends.
const untilInterrupted = "# Ctrl-C ends it"

var exitCodes = regexp.MustCompile(`# .*exit code (\d+)$`)

func (s shell) command(line string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), "sh", "-c", "exec "+line)
	cmd.Dir, cmd.WaitDelay = s.dir, 10*time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	// Ports of their own, and what other tests have built.
	cmd.Env = append(os.Environ(), listenEnv+"=127.0.0.1:0", releasesListenEnv+"=127.0.0.1:0", "GOFLAGS=-trimpath -buildvcs=false", "CGO_ENABLED=0")
	return cmd
}

// run runs a command to its end, and checks the exit code that README.md gives.
func (s shell) run(line string) string {
	s.t.Helper()
	want := 0
	if m := exitCodes.FindStringSubmatch(line); m != nil {
		want, _ = strconv.Atoi(m[1])
	}
	began := time.Now()
	cmd := s.command(line)
	out, err := cmd.CombinedOutput()
	s.t.Logf("$ %s\n%s(%.1f s)", line, out, time.Since(began).Seconds())
	if code := cmd.ProcessState.ExitCode(); code != want {
		s.t.Fatalf("%s: exit code %d, want %d (%v)", line, code, want, err)
	}
	return string(out)
}

// start starts a command that runs until interrupt is called, and waits until it
// has printed text.
func (s shell) start(line, text string) (output func() string, interrupt func()) {
	s.t.Helper()
	if !strings.Contains(line, untilInterrupted) {
		s.t.Fatalf("README.md does not say that Ctrl-C ends %q", line)
	}
	cmd := s.command(line)
	out := &watchedBuffer{want: text, seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-out.seen:
	case err := <-ended:
		s.t.Fatalf("%s: %v\n%s", line, err, out.text())
	case <-time.After(time.Minute):
		s.t.Fatalf("%s does not print %q:\n%s", line, text, out.text())
	}
	return out.text, func() {
		s.t.Helper()
		cmd.Process.Signal(os.Interrupt)
		if err := <-ended; err != nil {
			s.t.Errorf("%s, after Ctrl-C: %v\n%s", line, err, out.text())
		}
	}
}

// watchedBuffer closes seen when it has want.
type watchedBuffer struct {
	mu   sync.Mutex
	b    strings.Builder
	want string
	seen chan struct{}
	once sync.Once
}

func (w *watchedBuffer) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func (w *watchedBuffer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b.Write(p)
	if strings.Contains(w.b.String(), w.want) {
		w.once.Do(func() { close(w.seen) })
	}
	return len(p), nil
}

// The commands in README's "A manager to try it with" work in their order, with the
// exit codes beside them.
func TestReadmeWalk(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a minute or two")
	}
	blocks := readmeBlocks(t, "A manager to try it with")
	if len(blocks) != 3 || len(blocks[1]) != 1 || len(blocks[2]) < 5 {
		t.Fatalf("README.md has the blocks %q", blocks)
	}
	s := shell{t, copyRepository(t)}
	last := len(blocks[0]) - 1
	for _, line := range blocks[0][:last] {
		s.run(line)
	}
	served, stopServe := s.start(blocks[0][last], "(works once)")
	defer stopServe()
	node, stopNode := s.start(blocks[1][0], "Registered as node ")
	operator := blocks[2]
	for _, line := range operator[:len(operator)-1] {
		out := s.run(line)
		if strings.Contains(line, "1.2.0") && !strings.Contains(out, "rolled back") {
			t.Errorf("%s does not print why:\n%s", line, out)
		}
		if strings.HasSuffix(line, " nodes") && (strings.Count(out, "\n") != 14 || !strings.Contains(out, "degraded") || !strings.Contains(out, " demo\n")) {
			t.Errorf("%s prints not all nodes:\n%s", line, out)
		}
	}
	_, stopEvents := s.start(operator[len(operator)-1], "upgrade_completed")
	stopEvents()
	stopNode()
	id := regexp.MustCompile(`Registered as node (\S+)\.`)
	again, stopNode := s.start(blocks[1][0], "Registered as node ")
	stopNode()
	if a, b := id.FindStringSubmatch(node()), id.FindStringSubmatch(again()); a == nil || b == nil || a[1] != b[1] {
		t.Errorf("a second run does not continue with the same node:\n%s\n%s", node(), again())
	}

	// The link stands alone, and every file that serve names is there.
	text := served()
	block := text[strings.Index(text, "\nCreate the first administrator: "):]
	if !regexp.MustCompile(`^\nCreate the first administrator: https://\S+  \(works once\)\n\n`).MatchString(block) {
		t.Errorf("serve does not print alone the administrator's link:\n%s", text)
	}
	paths := regexp.MustCompile(`[^\s=]*`+defaultDir+`/\S*`).FindAllString(text, -1)
	if len(paths) < 3 {
		t.Errorf("serve names only the files %q", paths)
	}
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.dir, path)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("serve names a file that is not there: %v", err)
		}
	}
}

// Git ignores the files of the walk.
func TestGitIgnoresTheDataDirectory(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../.gitignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"/bin/", fmt.Sprintf("/%s/", defaultDir)} {
		if !slices.Contains(strings.Split(string(b), "\n"), line) {
			t.Errorf(".gitignore has no %s", line)
		}
	}
}
