package release_test

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/release"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// manifest.schema.json accepts the same manifests as Parse, with the same names and
// limits.
func TestManifestSchema(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("manifest.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Properties map[string]struct {
			MaxItems int `json:"maxItems"`
			Maximum  uint64
			Items    struct {
				MaxLength  int64
				Properties map[string]struct{ Maximum, MaxLength int64 }
			}
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	fields := func(v any) []string {
		var names []string
		for i := range reflect.TypeOf(v).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(v).Field(i).Tag.Get("json"), ",")
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	artefact := doc.Properties["artefacts"].Items.Properties
	if got, want := slices.Sorted(maps.Keys(doc.Properties)), fields(release.Manifest{}); !slices.Equal(got, want) {
		t.Errorf("the schema has %v, the type %v", got, want)
	}
	if got, want := slices.Sorted(maps.Keys(artefact)), fields(release.Artefact{}); !slices.Equal(got, want) {
		t.Errorf("the schema has %v, the type %v", got, want)
	}
	if p := doc.Properties; p["commands"].MaxItems != release.MaxCommands || p["commands"].Items.MaxLength != release.MaxCommandLen || p["first_start_secs"].Maximum != release.MaxFirstStartSecs ||
		p["artefacts"].MaxItems != release.MaxArtefacts || artefact["size"].Maximum != release.MaxTarball || artefact["unpacked_size"].Maximum != release.MaxUnpacked {
		t.Errorf("the limits are others: %+v", doc)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat() // date-time
	schema, err := c.Compile("manifest.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]any{
		"version": "1.5.0", "device_type": "edge", "channel": "stable", "released_at": "2026-01-01T00:00:00Z", "sequence": 42, "rollback_floor": "1.4.0", "more": true,
		"commands": []string{release.CommandProbe, release.CommandConfigCheck, "of a later node"}, "first_start_secs": 3600,
		"artefacts": []any{map[string]any{"arch": "x86_64-linux", "variant": "default", "url": "https://github.com/acme/edge/releases/download/v1.5.0/x.tar.gz", "sha256": strings.Repeat("0a", 32), "size": 1, "unpacked_size": 2}},
	}
	try := func(what string, want bool) {
		t.Helper()
		b, err := json.Marshal(good)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = release.Parse(b)
		if bySchema := schema.Validate(v); (bySchema == nil) != want || (err == nil) != want {
			t.Errorf("%s: want %t; the schema says %v, Parse %v", what, want, bySchema, err)
		}
	}
	try("as it is", true)
	change := func(in map[string]any, key string, values ...any) {
		old := in[key]
		for _, v := range values {
			in[key] = v
			try(key, false)
		}
		delete(in, key)
		optional := slices.Contains([]string{"rollback_floor", "released_at", "commands", "first_start_secs", "size", "unpacked_size"}, key)
		try("no "+key, optional)
		in[key] = old
	}
	change(good, "version", "", "v1.5.0", "1.5", "latest", 1, strings.Repeat("1", 70)+".0.0")
	change(good, "device_type", "", "a b", "a/b", strings.Repeat("x", 65), 1, nil)
	change(good, "channel", "", "../stable", 1)
	change(good, "released_at", "yesterday", 1)
	change(good, "rollback_floor", "none", 1)
	change(good, "commands", "probe", []any{""}, []any{1}, []any{strings.Repeat("x", 41)}, []any{"probe;id"}, []any{"a\n"}, slices.Repeat([]any{"x"}, 17))
	change(good, "first_start_secs", -1, 3601, "60", 0.5)
	change(good, "artefacts", []any{}, "x", 1)
	a := good["artefacts"].([]any)[0].(map[string]any)
	change(a, "arch", "", "x86 64", 1)
	change(a, "variant", "", "a/b")
	change(a, "url", "", strings.Repeat("x", 2049))
	change(a, "sha256", "", strings.Repeat("0A", 32), strings.Repeat("0", 63))
	change(a, "size", -1, int64(1<<35), "1")
	change(a, "unpacked_size", -1, int64(1<<37), 1.5)
}
