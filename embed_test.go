package edgeagent_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxOnTop bounds what package daemon adds to a stripped program for x86_64 that serves HTTPS,
// in bytes. The libraries that verify signatures are most of it: see docs/embed.md.
const maxOnTop = 10_300_000

// plainDaemon is a service with HTTPS that links the standard library alone. The comments stand where
// embeddingDaemon has more.
const plainDaemon = `package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	// imports
)

func serve(ctx context.Context) error {
	s := &http.Server{Addr: ":8443", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, err := http.Get("https://upstream.example")
		if err != nil {
			slog.Error("no answer", "error", err)
			return
		}
		defer res.Body.Close()
		var v map[string]any
		_ = json.NewDecoder(res.Body).Decode(&v)
		_ = json.NewEncoder(w).Encode(v)
	})}
	go s.ListenAndServeTLS("cert.pem", "key.pem")
	<-ctx.Done()
	return s.Shutdown(context.WithoutCancel(ctx))
}

func main() {
	// main
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if serve(ctx) != nil {
		os.Exit(1)
	}
}
`

// embeddingDaemon is plainDaemon with an agent.
var embeddingDaemon = strings.NewReplacer("// imports", `"`+module+`/agent"
	"`+module+`/daemon"`,
	"// main", `daemon.Main(daemon.Options{Name: "player", Agent: agent.Options{Version: "1.0.0",
		Serve: func(ctx context.Context, a *agent.Agent) error { a.Ready(); return serve(ctx) }}})`).Replace(plainDaemon)

// buildLine returns the environment and the flags of the build line that docs/embed.md gives an author.
func buildLine(t *testing.T) (env, flags []string) {
	t.Helper()
	b, err := os.ReadFile("docs/embed.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^ {4,}((?:\w+=\S+ )+)go build (.+) -o player \.$`).FindSubmatch(b)
	if line == nil {
		t.Fatal("docs/embed.md has no build line")
	}
	for _, m := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(string(line[2]), -1) {
		flags = append(flags, strings.Trim(m, `"`))
	}
	return append(strings.Fields(string(line[1])), "GOOS=linux", "GOARCH=amd64"), flags
}

// build builds a program of one file, in this module, and returns its path.
func build(t *testing.T, name, text string, env, flags []string) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, name+".go"), filepath.Join(dir, name)
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	goTool(t, "", env, slices.Concat([]string{"build"}, flags, []string{"-o", program, source})...)
	return program
}

// goTool runs the go command in a directory, and returns what it prints.
func goTool(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		detail := err.Error()
		if e, ok := err.(*exec.ExitError); ok {
			detail += ": " + string(e.Stderr)
		}
		t.Fatalf("go %s: %.3000s", strings.Join(args, " "), detail)
	}
	return string(out)
}

// A service with HTTPS that embeds the agent stays within the weight that docs/embed.md states.
func TestEmbeddingWeighs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it links two programs")
	}
	env, flags := buildLine(t)
	size := func(name, text string) int64 {
		st, err := os.Stat(build(t, name, text, env, flags))
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	plain, with := size("plain", plainDaemon), size("embedding", embeddingDaemon)
	t.Logf("alone %d bytes, with the agent %d: %d more", plain, with, with-plain)
	if with-plain > maxOnTop {
		t.Errorf("the agent adds %d bytes to a service with HTTPS, more than %d", with-plain, maxOnTop)
	}
}

// What an author's program does before its main, besides the packages of Sigstore and what
// these import, takes less than a millisecond and 64 KiB.
func TestEmbeddingInitialisesLittle(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it links a program")
	}
	const most, mostBytes, tries = 1.0, 64 << 10, 30 // milliseconds; bytes; a loaded machine may stop a run anywhere
	env, flags := buildLine(t)
	imports := map[string][]string{}
	for line := range strings.Lines(goTool(t, "", env, "list", "-deps", "-tags", tagsOf(flags),
		"-f", `{{if not .Standard}}{{.ImportPath}} {{join .Imports " "}}{{end}}`, "./examples/sidecar")) {
		if words := strings.Fields(line); len(words) > 0 {
			imports[words[0]] = words[1:]
		}
	}
	theirs := map[string]bool{}
	var mark func(string)
	mark = func(path string) {
		if _, known := imports[path]; known && !theirs[path] {
			theirs[path] = true
			for _, p := range imports[path] {
				mark(p)
			}
		}
	}
	for path := range imports {
		if strings.HasPrefix(path, "github.com/sigstore/") || strings.HasPrefix(path, "github.com/theupdateframework/") {
			mark(path)
		}
	}
	program := build(t, "embedding", embeddingDaemon, env, flags)
	var clock float64
	for range tries {
		cmd := exec.Command(program, "version")
		cmd.Env = append(cmd.Environ(), "GODEBUG=inittrace=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %.2000s", err, out)
		}
		var bytes, seen int
		clock = 0
		for line := range strings.Lines(string(out)) {
			var pkg string
			var at, ms float64
			var n int
			if _, err := fmt.Sscanf(line, "init %s @%f ms, %f ms clock, %d bytes", &pkg, &at, &ms, &n); err != nil {
				continue // the version
			}
			if _, library := imports[pkg]; library && !theirs[pkg] {
				seen, bytes, clock = seen+1, bytes+n, clock+ms
			}
		}
		if seen == 0 || bytes > mostBytes {
			t.Fatalf("%d packages allocate %d bytes before main, more than %d: %.500s", seen, bytes, mostBytes, out)
		}
		if clock <= most {
			t.Logf("%d packages take %.2f ms and %d bytes", seen, clock, bytes)
			return
		}
	}
	t.Errorf("our packages and what they import take %.2f ms before main, more than %.0f", clock, most)
}

// tagsOf returns the build tags among flags.
func tagsOf(flags []string) string {
	if i := slices.Index(flags, "-tags"); i >= 0 {
		return flags[i+1]
	}
	return ""
}

// An author's build downloads the modules that it links, and no other: none of those that the
// simulation, the benchmarks and the tests need. docs/embed.md has their number.
func TestEmbeddingDownloadsWhatItLinks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it unpacks every module that the agent links")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	dir, cache := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"go.mod":  "module player.example\n\ngo 1.26.0\n\nrequire " + module + " v0.0.0\n\nreplace " + module + " => " + here + "\n",
		"go.sum":  string(sums),
		"main.go": embeddingDaemon,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env, flags := buildLine(t)
	words := strings.Fields(goTool(t, "", nil, "env", "GOMODCACHE", "GOPROXY"))
	env = append(env, "GOMODCACHE="+cache, "GOPROXY=file://"+words[0]+"/cache/download,"+words[1], "GOFLAGS=-mod=mod -modcacherw -buildvcs=false", "GOWORK=off")
	goTool(t, dir, env, slices.Concat([]string{"build"}, flags, []string{"-o", "player", "."})...)

	linked := map[string]bool{}
	for line := range strings.Lines(goTool(t, dir, env, "list", "-deps", "-tags", tagsOf(flags), "-f", "{{with .Module}}{{if .Version}}{{.Path}}@{{.Version}}{{end}}{{end}}", ".")) {
		if m := strings.TrimSpace(line); m != "" && !strings.HasPrefix(m, module+"@") { // that is the replaced one
			linked[m] = true
		}
	}
	downloads := filepath.Join(cache, "cache", "download")
	downloaded := map[string]bool{}
	var bytes int64
	err = filepath.WalkDir(downloads, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".zip" {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		name, version, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(path, downloads+"/"), ".zip"), "/@v/")
		upper := regexp.MustCompile(`![a-z]`) // how the cache spells a capital letter
		downloaded[upper.ReplaceAllStringFunc(name+"@"+version, func(s string) string { return strings.ToUpper(s[1:]) })] = true
		bytes += st.Size()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d modules, %d bytes", len(downloaded), bytes)
	if len(downloaded) == 0 {
		t.Error("nothing was downloaded")
	}
	for _, m := range slices.Sorted(maps.Keys(downloaded)) {
		if !linked[m] {
			t.Errorf("the build downloads %s, of which it links nothing", m)
		}
	}
}
