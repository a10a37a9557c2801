package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestParseArgs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		ok   func(options) bool
		want string // of the error
	}{
		{"", func(o options) bool {
			return slices.Equal(o.rates, []int64{0, 100, 10}) && o.runs == 7 && o.limitedRuns == 3 && len(o.only) == 0 && o.sizeMB == 0 && o.wants("gz")
		}, ""},
		{"--json a --svg b --payload c --size 500 --runs 2 --rates 10,0", func(o options) bool {
			return o.json == "a" && o.svg == "b" && o.payload == "c" && o.sizeMB == 500 && o.runs == 2 && slices.Equal(o.rates, []int64{10, 0})
		}, ""},
		{"--only gz,rauc", func(o options) bool { return o.wants("gz") && o.wants("rauc") && !o.wants("shell") }, ""},
		{"--quick", func(o options) bool {
			return slices.Equal(o.rates, []int64{0}) && o.runs == 1 && o.sizeMB == 500 && o.wants("gz-resumed") && !o.wants("rauc")
		}, ""},
		{"--quick --runs 3 --size 0 --only gz", func(o options) bool { return o.runs == 3 && o.sizeMB == 0 && !o.wants("shell") }, ""},
		{"--rates fast", nil, `"fast" is not a number`},
		{"--rates 10,10", nil, "appears twice"},
		{"--rates -1", nil, "is not a number"},
		{"--rates ,", nil, "no speed"},
		{"--only ,", nil, "no row is given"},
		{"--json /nonexistent/x", nil, "/nonexistent/x cannot be written"},
		{"--svg /", nil, "/ cannot be written: it is a directory"},
		{"--runs 0", nil, "must be 1 or more"},
		{"--size -1", nil, "outside 0 to 10000"},
		{"gz", nil, `unexpected "gz"`},
		{"--fast", nil, "not defined"},
		{"--help", nil, "--json"},
	} {
		var said bytes.Buffer
		o, err := parseArgs(strings.Fields(c.args), &said)
		switch {
		case c.ok == nil && (err == nil || !strings.Contains(strings.ReplaceAll(said.String(), "  -", "  --"), c.want)):
			t.Errorf("%q: %v, and said %q; want %q", c.args, err, said.String(), c.want)
		case c.ok != nil && (err != nil || !c.ok(o)):
			t.Errorf("%q: %+v, %v", c.args, o, err)
		}
	}
}

func TestUnknownRow(t *testing.T) {
	t.Parallel()
	rows := []*row{{name: "gz"}, {name: "shell"}}
	if got := (options{only: []string{"gz", "shel"}}).unknown(rows); got != "shel" {
		t.Errorf("got %q", got)
	}
	if got := (options{only: []string{"shell"}}).unknown(rows); got != "" {
		t.Errorf("got %q", got)
	}
}
