package edgeagent_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// probe is a program that prints what its imports did before main. The comment stands where it
// imports more. Package expvar, which registers a page, would show there.
const probe = `package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"
	// imports
)

func main() {
	runtime.GC() // it starts the workers of the runtime, which are no goroutines of a package
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var started []string
	for _, g := range strings.Split(string(stacks), "\n\n") {
		if i := strings.Index(g, "created by "); i >= 0 {
			by, _, _ := strings.Cut(g[i:], " in goroutine")
			started = append(started, by)
		}
	}
	var profiles []string
	for _, p := range pprof.Profiles() {
		profiles = append(profiles, p.Name())
	}
	var flags []string
	flag.VisitAll(func(f *flag.Flag) { flags = append(flags, f.Name) })
	status, _ := os.ReadFile("/proc/self/status")
	var masks []string
	for line := range strings.Lines(string(status)) {
		if name, _, _ := strings.Cut(line, ":"); name == "SigBlk" || name == "SigIgn" || name == "SigCgt" || name == "Umask" {
			masks = append(masks, strings.TrimSpace(line))
		}
	}
	_, pattern := http.DefaultServeMux.Handler(&http.Request{Method: "GET", Host: "localhost", URL: must("/debug/requests")})
	t := http.DefaultTransport.(*http.Transport)
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"goroutines": started, "flags": flags, "profiles": profiles, "process": masks, "arguments": len(os.Args),
		"environment": os.Environ(), "/debug/requests": pattern,
		"client": reflect.ValueOf(*http.DefaultClient).IsZero(), "proxy": reflect.ValueOf(t.Proxy).Pointer() == reflect.ValueOf(http.ProxyFromEnvironment).Pointer(),
		"transport": fmt.Sprint(t.TLSClientConfig == nil, t.MaxIdleConns, t.IdleConnTimeout, t.DisableKeepAlives),
		"log": fmt.Sprint(log.Flags(), log.Prefix(), log.Writer() == io.Writer(os.Stderr)), "slog": fmt.Sprintf("%T", slog.Default().Handler()),
		"usage": flag.CommandLine.Name() == os.Args[0], "collector": debug.SetGCPercent(100), "memory": debug.SetMemoryLimit(-1), "processors": runtime.GOMAXPROCS(0) == runtime.NumCPU(),
		"zone": time.Local.String(), "no pages": reflect.DeepEqual(http.DefaultServeMux, http.NewServeMux()),
	})
}
`

// importing returns what probe prints with these imports, statements before main, and flags.
func importing(t *testing.T, packages []string, init string, env, flags []string) string {
	t.Helper()
	var lines strings.Builder
	for _, p := range packages {
		lines.WriteString("\t_ \"" + p + "\"\n")
	}
	text := strings.Replace(probe, "\t// imports\n", "\t\"net/url\"\n"+lines.String(), 1) + "\nfunc must(path string) *url.URL { return &url.URL{Path: path} }\n\nfunc init() {\n" + init + "\n}\n"
	program := build(t, "probe", text, env, flags)
	// Under the same name in each build.
	same := filepath.Join(t.TempDir(), "probe")
	if err := os.Rename(program, same); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(same)
	cmd.Env = []string{"HOME=/nonexistent", "TZ=UTC"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %.2000s", err, out)
	}
	return string(out)
}

// library returns the packages that a program may import, and the packages of others that they
// import.
func library(t *testing.T, tags string) (packages, others []string) {
	t.Helper()
	for _, p := range ours(t, tags) {
		if top, _, _ := strings.Cut(p.name(), "/"); top == p.name() && top != "bench" /* a program */ {
			packages = append(packages, p.ImportPath)
			for _, path := range p.Imports {
				if strings.Contains(path, ".") && !strings.HasPrefix(path, module+"/") && !strings.Contains(path, "/internal/") {
					others = append(others, path)
				}
			}
		}
	}
	slices.Sort(others)
	return packages, slices.Compact(others)
}

// Our packages start nothing, register nothing and change no global when a program imports them:
// it is the same as one that imports only the libraries that they use.
func TestImportsHaveNoEffect(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it links three programs")
	}
	env, flags := buildLine(t)
	packages, others := library(t, tagsOf(flags))
	if !slices.Contains(packages, module+"/daemon") || !slices.Contains(packages, module+"/agent") || len(packages) < 10 {
		t.Fatalf("the library has the packages %q", packages)
	}
	if slices.Contains(others, "github.com/rs/zerolog") {
		t.Error("the library has a logger with globals of its own; it logs to a *slog.Logger")
	}
	want, got := importing(t, others, "", env, flags), importing(t, packages, "", env, flags)
	if got != want {
		t.Errorf("a program with our packages has\n%s\nand one with %q\n%s", got, others, want)
	}
	// Control: the probe sees each of these.
	before := facts(t, want)
	after := facts(t, importing(t, others, `go func() { select {} }()
		flag.Bool("x", false, "")
		http.Handle("/x", http.NotFoundHandler())
		slog.SetDefault(slog.New(slog.DiscardHandler))
		log.SetFlags(0)
		debug.SetGCPercent(50)
		os.Setenv("X", "y")
		http.DefaultClient.Timeout = 1
		time.Local = time.FixedZone("x", 1)`, env, flags))
	for _, fact := range []string{"goroutines", "flags", "no pages", "slog", "log", "collector", "environment", "client", "zone"} {
		if reflect.DeepEqual(before[fact], after[fact]) {
			t.Errorf("the probe sees no change of %q: %v", fact, after[fact])
		}
	}
}

func facts(t *testing.T, text string) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// gRPC's tracing, which sigstore-go links, registers pages on http.DefaultServeMux, and with the
// build line of docs/embed.md it does not.
func TestTheBuildLineLeavesOutDebugPages(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it links two programs")
	}
	env, flags := buildLine(t)
	with := `"/debug/requests":"/debug/requests"`
	if out := importing(t, []string{module + "/agent"}, "", env, flags); strings.Contains(out, with) {
		t.Errorf("built as docs/embed.md says, a program has the page: %s", out)
	}
	if i := slices.Index(flags, "-tags"); i >= 0 {
		flags = slices.Delete(slices.Clone(flags), i, i+2)
	}
	if out := importing(t, []string{module + "/agent"}, "", env, flags); !strings.Contains(out, with) {
		t.Errorf("built without tags, a program lacks the page, so docs/embed.md need not mention it: %s", out)
	}
}
