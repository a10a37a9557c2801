// Package edgeagent_test holds the tests of what the whole repository keeps to.
package edgeagent_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bilbycast/edge-agent"

// tables returns the rows of ARCHITECTURE.md's tables of packages and of libraries, by
// their first cell: the other cells.
func tables(t *testing.T) (packages, libraries map[string][]string) {
	t.Helper()
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string][]string{"package": {}, "library": {}}
	var rows map[string][]string
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") {
			rows = nil
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case rows == nil:
			rows = all[cells[0]]
		case !strings.HasPrefix(cells[0], "---"):
			rows[cells[0]] = cells[1:]
		}
	}
	return all["package"], all["library"]
}

// imports returns the import paths that each package may have beyond the standard
// library. One that ends in "/..." stands for all below.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	packages, libraries := tables(t)
	if len(packages) < 20 || len(libraries) < 10 {
		t.Fatalf("ARCHITECTURE.md has %d packages and %d libraries", len(packages), len(libraries))
	}
	allowed := map[string][]string{}
	for name, cells := range packages {
		allowed[name] = nil
		for _, word := range split(cells[1]) {
			row, library := libraries[word]
			if !library {
				allowed[name] = append(allowed[name], module+"/"+word)
				continue
			}
			paths, _, _ := strings.Cut(row[0], " (")
			allowed[name] = append(allowed[name], split(paths)...)
		}
	}
	return allowed
}

func split(cell string) []string {
	return slices.DeleteFunc(strings.Split(cell, ", "), func(s string) bool { return s == "" })
}

type goPackage struct {
	ImportPath string
	Dir        string
	Standard   bool
	Imports    []string
	GoFiles    []string
	Deps       []string
}

func (p goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Standard,Imports,GoFiles,Deps"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var ps []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); err == io.EOF {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

// ours lists the packages of this module that have more than tests.
func ours(t *testing.T, tags string) []goPackage {
	return slices.DeleteFunc(list(t, "-tags", tags, "./..."), func(p goPackage) bool { return len(p.GoFiles) == 0 })
}

func allowed(row []string, path string) bool {
	return slices.ContainsFunc(row, func(a string) bool {
		below, all := strings.CutSuffix(a, "...")
		return path == a || all && strings.HasPrefix(path, below)
	})
}

func TestImports(t *testing.T) {
	t.Parallel()
	std := map[string]bool{}
	for _, p := range list(t, "std") {
		std[p.ImportPath] = true
	}
	table, used := imports(t), map[string]map[string]bool{}
	for _, tags := range []string{"", "sim"} {
		for _, p := range ours(t, tags) {
			row, ok := table[p.name()]
			if !ok {
				t.Errorf("%s is not in the table", p.name())
			}
			for _, path := range p.Imports {
				if !std[path] && !allowed(row, path) {
					t.Errorf("tags %q: %s imports %s, which the table does not allow", tags, p.name(), path)
				}
				if used[p.name()] == nil {
					used[p.name()] = map[string]bool{}
				}
				used[p.name()][path] = true
			}
		}
	}
	for name, row := range table {
		for _, a := range row {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(used[name])), func(path string) bool { return allowed([]string{a}, path) }) {
				t.Errorf("the table allows %s to import %s, which it does not", name, a)
			}
		}
	}
}

// What a device runs must not be able to sign, and must not contain a server.
func TestAgentLinksNothingOfTheSimulation(t *testing.T) {
	t.Parallel()
	deps := list(t, "-deps", "./cmd/edge-agent")
	for _, p := range deps {
		if slices.Contains([]string{module + "/internal/footprint", module + "/internal/inflate", module + "/internal/safelog", module + "/internal/state", module + "/internal/tarstream"}, p.ImportPath) { // which other modules must not reach
			continue
		}
		for _, no := range []string{module + "/manager-sim", module + "/internal", module + "/bench", "github.com/sigstore/sigstore-go/pkg/sign", "modernc.org/"} {
			if p.ImportPath == no || strings.HasPrefix(p.ImportPath, strings.TrimSuffix(no, "/")+"/") {
				t.Errorf("edge-agent links %s", p.ImportPath)
			}
		}
	}
	if len(deps) < 100 {
		t.Errorf("only %d packages: is the list complete?", len(deps))
	}
}

// Every change of the file system under an install root goes through fsutil, so
// that the crash matrix sees it. Files of the simulation build are exempt.
func TestFilesAreChangedThroughFsutil(t *testing.T) {
	t.Parallel()
	changes := []string{"Chmod", "Chown", "Chtimes", "CopyFS", "Create", "CreateTemp", "Lchown", "Link", "Mkdir", "MkdirAll", "MkdirTemp", "Remove", "RemoveAll", "Rename", "Symlink", "Truncate", "WriteFile"}
	checked := 0
	for _, p := range ours(t, "") {
		if !slices.Contains([]string{"agent", "config", "upgrade", "stage", "internal/state", "watchdog", "install", "cmd/edge-agent"}, p.name()) {
			continue
		}
		for _, file := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			checked++
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "os" && slices.Contains(changes, sel.Sel.Name) {
					t.Errorf("%s: os.%s; use fsutil.Disk", fset.Position(sel.Pos()), sel.Sel.Name)
				}
				return true
			})
		}
	}
	if checked < 20 {
		t.Errorf("only %d files were looked at", checked)
	}
}

// A time that is compiled in ages. The agent has one, which no decision takes for now.
func TestOneTimeIsCompiledIn(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, p := range list(t, "-deps", "./cmd/edge-agent") {
		if !strings.HasPrefix(p.ImportPath, module) {
			continue
		}
		for _, file := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			checked++
			if name := p.name() + "/" + file; bytes.Contains(b, []byte("time.Date(")) && name != "cert/clock.go" {
				t.Errorf("%s has a time of its own: use cert.Clock", name)
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d files were checked", checked)
	}
}

// docs/lessons.md names only tests that there are.
func TestEveryLessonNamesItsTests(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("docs/lessons.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	if err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			var b []byte
			b, err = os.ReadFile(path)
			tests.Write(b)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(doc), -1)
	if len(names) < 30 {
		t.Errorf("only %d tests are named", len(names))
	}
	for _, n := range names {
		if !strings.Contains(tests.String(), "func "+n[1]+"(t *testing.T)") {
			t.Errorf("there is no %s", n[1])
		}
	}
}

// The watchdog needs no network and no sigstore.
func TestWatchdogLinksNoNetwork(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "-deps", "./watchdog") {
		if p.ImportPath == "net" || p.ImportPath == "crypto/tls" || strings.Contains(p.ImportPath, "sigstore") {
			t.Errorf("watchdog links %s", p.ImportPath)
		}
	}
}

func TestProductionBinaryKnowsNoSimulation(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "edge-agent")
	build := func(args ...string) []byte {
		cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-o", bin}, args...), "./cmd/edge-agent")...)
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(bin)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	simulation, production := build("-tags", "sim"), build()
	for _, word := range []string{"EDGE_AGENT_SIM_TRUST", "sim-fault", "SIMULATION BUILD"} {
		if !bytes.Contains(simulation, []byte(word)) {
			t.Errorf("the simulation build does not contain %q: the next check proves nothing", word)
		}
		if bytes.Contains(production, []byte(word)) {
			t.Errorf("the production build contains %q", word)
		}
	}
}

func TestEveryExportedNameHasADoc(t *testing.T) {
	t.Parallel()
	for _, tags := range []string{"", "sim"} {
		for _, p := range ours(t, tags) {
			fset := token.NewFileSet()
			var files []*ast.File
			for _, name := range p.GoFiles {
				f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, f)
			}
			d, err := doc.NewFromFiles(fset, files, p.ImportPath)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(d.Doc, "Package ") && !strings.HasPrefix(d.Doc, "Command ") {
				t.Errorf("%s has no package doc", p.name())
			}
			check := func(name, text string) {
				if ast.IsExported(name[strings.LastIndex(name, ".")+1:]) && strings.TrimSpace(text) == "" {
					t.Errorf("%s: %s has no doc", p.name(), name)
				}
			}
			values := func(vs []*doc.Value) {
				for _, v := range vs {
					check(v.Names[0], v.Doc+specDocs(v.Decl))
				}
			}
			funcs := func(of string, fs []*doc.Func) {
				for _, f := range fs {
					if well := f.Name == "String" || f.Name == "Error" || f.Name == "Unwrap"; !well {
						check(of+f.Name, f.Doc)
					}
				}
			}
			values(d.Consts)
			values(d.Vars)
			funcs("", d.Funcs)
			for _, x := range d.Types {
				check(x.Name, x.Doc)
				values(x.Consts)
				values(x.Vars)
				funcs("", x.Funcs)
				funcs(x.Name+".", x.Methods)
			}
		}
	}
}

// specDocs are the comments on the lines of a const or var group.
func specDocs(d *ast.GenDecl) string {
	var text strings.Builder
	for _, s := range d.Specs {
		if v, ok := s.(*ast.ValueSpec); ok {
			text.WriteString(v.Doc.Text() + v.Comment.Text())
		}
	}
	return text.String()
}
