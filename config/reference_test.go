package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/reference"
)

// Every key has a comment in config.go, and docs/reference/config.md has it.
func TestReferenceOfTheKeys(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{} // by type and field
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				comments[spec.Name.Name+"."+f.Names[0].Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
			}
		}
		return true
	})
	kinds := configKeys()
	var b strings.Builder
	b.WriteString(reference.Header + "# Keys of config.toml\n\n[config.md](../config.md) has an example, and how to check a file.\n")
	for section := range reflect.TypeFor[Config]().Fields() {
		name := section.Tag.Get("toml")
		fmt.Fprintf(&b, "\n## [%s]\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n", name)
		for f := range section.Type.Fields() {
			key := name + "." + f.Tag.Get("toml")
			comment := comments[section.Type.Name()+"."+f.Name]
			if comment == "" {
				t.Errorf("%s has no comment", key)
			}
			byDefault := ""
			if text, ok := strings.CutSuffix(comment, " Required."); ok {
				comment, byDefault = text, "required"
			} else if text, value, ok := strings.Cut(comment, " Default: "); ok {
				comment, byDefault = text, "`"+strings.TrimSuffix(value, ".")+"`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", key, kinds[key], byDefault, strings.ReplaceAll(comment, "<", "&lt;"))
		}
	}
	reference.Check(t, "..", "config.md", b.String())
}
