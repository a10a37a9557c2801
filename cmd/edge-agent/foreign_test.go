package main

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/install"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/spf13/cobra"
)

const hostile = "a\x1b]52;c;ZXZpbA==\x07\x1b[2Kb\u009b2J\u202ec\r\nok    all is well\x00"

// fill sets every text in v to the hostile one.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		switch v.Interface().(type) {
		case time.Time:
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		case release.Version:
			v.Set(reflect.ValueOf(release.MustVersion("1.0.0")))
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i))
			}
		}
	case reflect.Bool:
		v.SetBool(true)
	}
}

// Texts of a manager, a release, a journal or a damaged state.json reach the
// terminal as text alone, and begin no line.
func TestReportsAreHarmlessOnATerminal(t *testing.T) {
	t.Parallel()
	for name, print := range map[string]func(out *bytes.Buffer) error{
		"status": func(out *bytes.Buffer) error {
			var r statusReport
			fill(reflect.ValueOf(&r).Elem())
			return r.table(out, time.Now())
		},
		"verify": func(out *bytes.Buffer) error {
			var r verifyReport
			fill(reflect.ValueOf(&r).Elem())
			return r.print(out)
		},
		"verify, refused": func(out *bytes.Buffer) error { return verifyReport{Reason: hostile}.print(out) },
		"trust show": func(out *bytes.Buffer) error {
			cmd := &cobra.Command{}
			cmd.SetOut(out)
			return trustReport{Source: "renewed", Unfit: hostile, Keys: []verify.Key{{Kind: hostile, URL: hostile}}}.print(cmd)
		},
		"probe": func(out *bytes.Buffer) error {
			var s agent.ProbeStep
			fill(reflect.ValueOf(&s).Elem())
			newProbeTable(out, 2).print(s)
			s.OK, s.Skipped = false, false
			newProbeTable(out, 1).print(s)
			return nil
		},
		"doctor": func(out *bytes.Buffer) error {
			printFindings(out, []install.Finding{{What: hostile, OK: true}, {What: hostile, Problem: hostile}})
			return nil
		},
	} {
		var out bytes.Buffer
		if err := print(&out); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.Contains(out.String(), "a?]52;c;ZXZpbA==") {
			t.Errorf("%s does not show the text, so this tests nothing: %q", name, out.String())
		}
		for line := range strings.Lines(out.String()) {
			if text := strings.TrimSuffix(line, "\n"); strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.HasPrefix(text, "ok    all") {
				t.Errorf("%s prints %q", name, text)
			}
		}
	}
}
