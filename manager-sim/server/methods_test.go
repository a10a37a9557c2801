package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxMethods is how many methods a type of the server may have. One with more does
// several things.
const maxMethods = 15

// goPackage is a package as `go list` describes it.
type goPackage struct {
	ImportPath, Dir, Export string
	DepOnly                 bool
	GoFiles                 []string
}

// loadServer returns this package and those below, and an importer of what they import.
func loadServer(t *testing.T, fset *token.FileSet) ([]goPackage, types.Importer) {
	t.Helper()
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,DepOnly,GoFiles", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var ours []goPackage
	exports := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			ours = append(ours, p)
		}
	}
	return ours, importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
}

// The types of this package and of the packages below have few methods. Methods of
// embedded fields count: they are as much a part of a type. (store.Store is no part of
// this: it is one concrete type with a method for each query.)
func TestTypesHaveFewMethods(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it type-checks the server and all that it imports")
	}
	fset := token.NewFileSet()
	packages, imports := loadServer(t, fset)
	found := 0
	for _, p := range packages {
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		checked, err := (&types.Config{Importer: imports}).Check(p.ImportPath, fset, files, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range checked.Scope().Names() {
			object, ok := checked.Scope().Lookup(name).(*types.TypeName)
			if !ok {
				continue
			}
			found++
			if n := types.NewMethodSet(types.NewPointer(object.Type())).Len(); n > maxMethods {
				t.Errorf("%s.%s has %d methods, more than %d", p.ImportPath, name, n, maxMethods)
			}
		}
	}
	if found < 60 {
		t.Errorf("only %d types were found", found)
	}
}
