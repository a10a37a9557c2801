package edgeagent_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// documents returns the texts of the documents that describe the code as it is, by path.
// CHANGELOG.md is not one: it also names what was removed.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = string(b)
		}
	}
	delete(texts, "CHANGELOG.md")
	if len(texts) < 15 {
		t.Fatalf("only %d documents were found", len(texts))
	}
	return texts
}

var (
	testName  = regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	testToRun = regexp.MustCompile(`-run ((?:Test|Fuzz)\w+)`)
	testFunc  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
)

// The documents name only tests that exist. A name after -run may be the beginning of one.
func TestDocumentsNameTheirTests(t *testing.T) {
	t.Parallel()
	var known []string
	for _, path := range goFiles(t) {
		if !strings.HasSuffix(path, "_test.go") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(b), -1) {
			known = append(known, m[1])
		}
	}
	texts := documents(t)
	for path, text := range texts {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s names %s, which does not exist", path, m[1])
			}
		}
		for _, m := range testToRun.FindAllStringSubmatch(text, -1) {
			if !slices.ContainsFunc(known, func(name string) bool { return strings.HasPrefix(name, m[1]) }) {
				t.Errorf("%s runs %s, which does not exist", path, m[1])
			}
		}
	}
	for _, path := range []string{"SECURITY.md", "ARCHITECTURE.md"} {
		if !testName.MatchString(texts[path]) {
			t.Errorf("%s names no test", path)
		}
	}
}

// declared is what the packages of this module declare.
type declared struct {
	packages map[string]bool     // by the name of the directory
	names    map[string]bool     // "package.Name" and "package.Type.Member"
	types    map[string][]string // packages that declare a type of that name
	keys     map[string]bool     // keys of config.toml, without the section
}

// declarations parses every Go file except tests, for all build tags.
func declarations(t *testing.T) declared {
	t.Helper()
	d := declared{map[string]bool{}, map[string]bool{}, map[string][]string{}, map[string]bool{}}
	for _, path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		pkg := filepath.Base(filepath.Dir(path))
		d.packages[pkg] = true
		for _, decl := range f.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Recv == nil {
					d.names[pkg+"."+decl.Name.Name] = true
				} else {
					d.addMember(pkg, typeName(decl.Recv.List[0].Type), decl.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					d.addSpec(pkg, spec)
				}
			}
		}
	}
	return d
}

func (d declared) addMember(pkg, typ, member string) {
	d.names[pkg+"."+typ+"."+member] = true
}

func (d declared) addSpec(pkg string, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			d.names[pkg+"."+name.Name] = true
		}
	case *ast.TypeSpec:
		d.names[pkg+"."+spec.Name.Name] = true
		if !slices.Contains(d.types[spec.Name.Name], pkg) {
			d.types[spec.Name.Name] = append(d.types[spec.Name.Name], pkg)
		}
		var fields *ast.FieldList
		switch typ := spec.Type.(type) {
		case *ast.StructType:
			fields = typ.Fields
		case *ast.InterfaceType:
			fields = typ.Methods
		}
		if fields == nil {
			return
		}
		for _, field := range fields.List {
			if field.Tag != nil && pkg == "config" {
				tag, _ := strconv.Unquote(field.Tag.Value)
				key, _, _ := strings.Cut(reflect.StructTag(tag).Get("toml"), ",")
				d.keys[key] = true
			}
			for _, name := range field.Names {
				d.addMember(pkg, spec.Name.Name, name.Name)
			}
			if len(field.Names) == 0 {
				d.addMember(pkg, spec.Name.Name, typeName(field.Type))
			}
		}
	}
}

// typeName returns the name of a type, without its package, its star and its parameters.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return ""
}

var (
	fence       = regexp.MustCompile("(?ms)^```.*?^```")
	codeSpan    = regexp.MustCompile("`([^`\n]+)`")
	goPath      = regexp.MustCompile(`^[\w./-]+\.go$`)
	packageName = regexp.MustCompile(`^\*?([a-z]\w*)\.(\w+(?:\.[A-Z]\w*)?)(?:\(.*\))?$`)
	memberName  = regexp.MustCompile(`^\*?([A-Z]\w*)\.([A-Z]\w*)$`)
	fileName    = regexp.MustCompile(`^[\w-]+\.(json|toml|yml|sh|md|db|service|path|tar)$`)
)

// stale returns why a code span names something of this module that does not exist, or "".
func (d declared) stale(span string) string {
	if goPath.MatchString(span) {
		if _, err := os.Stat(span); err != nil {
			return "no such file; write the path from the module's directory"
		}
		return ""
	}
	if m := memberName.FindStringSubmatch(span); m != nil {
		switch owners := d.types[m[1]]; {
		case len(owners) == 0:
			return "no such type"
		case len(owners) > 1:
			return "write the package: " + strings.Join(owners, ", ")
		case !d.names[owners[0]+"."+m[1]+"."+m[2]]:
			return "the type has no such field or method"
		}
	}
	m := packageName.FindStringSubmatch(span)
	if m == nil || !d.packages[m[1]] || fileName.MatchString(span) || d.keys[m[2]] || d.names[m[1]+"."+m[2]] {
		return ""
	}
	return "package " + m[1] + " does not declare it"
}

// The documents name only Go files, identifiers and members that exist.
func TestDocumentsNameTheCode(t *testing.T) {
	t.Parallel()
	d, checked := declarations(t), 0
	for path, text := range documents(t) {
		for _, m := range codeSpan.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if why := d.stale(m[1]); why != "" {
				t.Errorf("%s: `%s`: %s", path, m[1], why)
			}
			if goPath.MatchString(m[1]) || packageName.MatchString(m[1]) {
				checked++
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d names were checked", checked)
	}
}

func TestStaleNames(t *testing.T) {
	t.Parallel()
	d := declarations(t)
	for span, stale := range map[string]bool{
		"agent.Run": true, "agent.Agent.Run": false, "Agent.Run": false, "agent.New": false, "agent.New()": false,
		"state.ErrOwed": true, "state.ErrReportsPending": false, "state.Layout.Do": false, "Outbox.Do": true, "Outbox.SetAside": false,
		"agent.written": true, "cert.written": false, "Config.Signers": true, "agent.Config.Signers": true, "agent.Options.Signers": false,
		"agent/alive.go": true, "agent/status.go": false, "status.go": true,
		"state.json": false, "upgrade.enabled": false, "upgrade.enabledd": true, "os.Rename": false,
		"verify.Trust.Nothing": true, "engine.Nodes.Online": false, "fsutil.Disk": false,
	} {
		if got := d.stale(span); (got != "") != stale {
			t.Errorf("%s: %q, want stale %v", span, got, stale)
		}
	}
}
