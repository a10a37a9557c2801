package edgeagent_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Names of files, links and directories in an install root. The words are English
// words as well; the others name nothing else.
const (
	fileNames = `last-good|downloads|outbox|\.restart|\.lock|state\.json|watchdog\.json|config\.toml|credentials\.json|manager\.json|\.credentials-reserve|\.trust-new|\.release\.json`
	wordNames = `current|previous|versions|trust|restart`
)

var (
	isFileName = regexp.MustCompile(`^(` + fileNames + `)$`)
	isName     = regexp.MustCompile(`^(` + fileNames + `|` + wordNames + `)$`)
	// besideSlash matches a name that is an element of a path, also in a format.
	besideSlash = regexp.MustCompile(`/(` + fileNames + `|` + wordNames + `)($|[^\w.-])|(^|[^\w.-])(` + fileNames + `|` + wordNames + `)/`)
)

// otherPaths are names of the same spelling that stand for something else.
var otherPaths = map[string]string{
	"manager-sim/fakerelease/trust.go": "trust",      // beside the releases of a host
	"internal/rig/boxnode.go":          "/opt/trust", // the copy of that in a box
	"fsutil/denied.go":                 "/proc/self/attr/current",
}

// pathPackages are those whose functions take paths or parts of them.
var pathPackages = []string{"path", "filepath", "os", "fsutil", "fs", "syscall", "unix"}

// spelledPaths returns the string literals of f that spell a path of an install
// root:
//   - any literal with a name beside a slash ("/current/", "%s/restart");
//   - a literal that is a name, where it is an argument of a path function, an operand
//     of +, an element of a []string, or a constant;
//   - a literal that is a name and no English word, also in an assignment, a
//     comparison or a case.
//
// A name in a sentence, a label, a JSON key, a struct tag or the help of a command
// is no path.
func spelledPaths(f *ast.File) (found []*ast.BasicLit) {
	text := func(n ast.Node) (lit *ast.BasicLit, s string) {
		lit, ok := n.(*ast.BasicLit)
		if ok && lit.Kind == token.STRING {
			s, _ = strconv.Unquote(lit.Value)
		}
		return lit, s
	}
	refuse := func(name *regexp.Regexp, nodes ...ast.Expr) {
		for _, n := range nodes {
			if lit, s := text(n); name.MatchString(s) {
				found = append(found, lit)
			}
		}
	}
	help := []string{"Use", "Short", "Long", "Example"}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			n.Tag = nil
		case *ast.KeyValueExpr:
			key, ok := n.Key.(*ast.Ident)
			return !ok || !slices.Contains(help, key.Name)
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(pathPackages, x.Name) {
					refuse(isName, n.Args...)
				}
			}
		case *ast.BinaryExpr:
			if n.Op == token.ADD {
				refuse(isName, n.X, n.Y)
			} else {
				refuse(isFileName, n.X, n.Y)
			}
		case *ast.CaseClause:
			refuse(isFileName, n.List...)
		case *ast.CompositeLit:
			if array, ok := n.Type.(*ast.ArrayType); ok {
				if elt, ok := array.Elt.(*ast.Ident); ok && elt.Name == "string" {
					refuse(isName, n.Elts...)
				}
			}
		case *ast.ValueSpec:
			refuse(isName, n.Values...)
		case *ast.AssignStmt:
			refuse(isFileName, n.Rhs...)
		case *ast.BasicLit:
			refuse(besideSlash, n)
		}
		return true
	})
	return found
}

// Only package state spells the names in an install root: everybody else asks a
// state.Layout. Tests are free to spell them.
func TestOnlyStateSpellsPaths(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == "internal/state" {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		checked++
		for _, lit := range spelledPaths(f) {
			if s, _ := strconv.Unquote(lit.Value); s != otherPaths[path] {
				t.Errorf("%s: %s; use state.Layout", fset.Position(lit.Pos()), lit.Value)
			}
		}
	}
	units, err := filepath.Glob("systemd/units/*")
	if err != nil || len(units) < 5 {
		t.Errorf("the unit texts are %v, %v", units, err)
	}
	for _, path := range units {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.HasPrefix(line, "#") && besideSlash.MatchString(line) {
				t.Errorf("%s: %s; use a value of systemd.Layout", path, line)
			}
		}
	}
	if checked < 150 {
		t.Errorf("only %d files were checked", checked)
	}
}

func TestSpelledPaths(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]int{
		`x := filepath.Join(root, "current")`:                       1,
		`x := filepath.Join(root, "versions", v, "trust")`:          2,
		`x := root + "/current/" + name`:                            1,
		`x := fmt.Sprintf("ln -sfn versions/%s %s", v, link)`:       1,
		`x := fmt.Sprintf("%s/restart", root)`:                      1,
		`x := []string{"current", "last-good"}`:                     2,
		`x := name == "state.json"`:                                 1,
		`switch name { case "outbox", "downloads": }`:               2,
		`const x = ".lock"`:                                         1,
		`os.Remove("/opt/edge/previous")`:                           1,
		`x := "current" == status`:                                  0,
		`x := errors.New("current points to another version")`:      0,
		`x := errors.New("set token in config.toml, and restart")`:  0,
		`x := command{Use: "trust", Long: "cat /opt/e/state.json"}`: 0,
		`row("current", version)`:                                   0,
		"type x struct{ A string `json:\"previous\"` }":             0,
		`x := "/api/v1/restarts"`:                                   0,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc _() {\n"+code+"\n}", 0)
		if err != nil {
			t.Fatalf("%s: %v", code, err)
		}
		if got := len(spelledPaths(f)); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
}

// Every Go file is in a package that the linters see: none is below testdata, and
// none is left out of every build.
func TestLintersSeeEveryGoFile(t *testing.T) {
	t.Parallel()
	never := regexp.MustCompile(`(?m)^//go:build (ignore|never|tools)\b`)
	for _, path := range goFiles(t) {
		for element := range strings.SplitSeq(filepath.Dir(path), string(filepath.Separator)) {
			if element == "testdata" || element != "." && strings.HasPrefix(element, ".") || strings.HasPrefix(element, "_") {
				t.Errorf("%s: go list does not see what is below %s", path, element)
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if m := never.Find(b); m != nil {
			t.Errorf("%s: %s", path, m)
		}
	}
}

// goFiles returns the paths of all Go files of the repository.
func goFiles(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil || len(paths) < 300 {
		t.Fatalf("%d Go files: %v", len(paths), err)
	}
	return paths
}

// A transition gets its time from Layout.Do, which alone reads the clock: neither a
// function of package state nor a state.Change of a caller does.
func TestTransitionsReadNoClock(t *testing.T) {
	t.Parallel()
	changes := 0
	for _, path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		refuse := func(n ast.Node) {
			ast.Inspect(n, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Now" {
					if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
						t.Errorf("%s: a transition reads the clock; use the time that it gets", fset.Position(n.Pos()))
					}
				}
				return true
			})
		}
		if filepath.Dir(path) == "internal/state" && filepath.Base(path) != "do.go" {
			refuse(f)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.FuncLit)
			if !ok || lit.Type.Params.NumFields() != 3 || lit.Type.Results.NumFields() != 3 {
				return true
			}
			if sel, ok := lit.Type.Params.List[0].Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "State" {
				changes++
				refuse(lit.Body)
			}
			return true
		})
	}
	if changes < 5 {
		t.Errorf("only %d changes were found", changes)
	}
}
