package web

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// chip is a state as a word and an icon.
type chip struct {
	Word, Icon string
	Kind       string // "plain", "busy", "warn", "good" or "bad"
}

// ago returns how long before now t was, such as "3 minutes ago".
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < 5*time.Second:
		return "now"
	case d < time.Minute:
		return plural(int(d.Seconds()), "second") + " ago"
	case d < time.Hour:
		return plural(int(d.Minutes()), "minute") + " ago"
	case d < 48*time.Hour:
		return plural(int(d.Hours()), "hour") + " ago"
	}
	return plural(int(d.Hours()/24), "day") + " ago"
}

func utc(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// plural returns a number with its noun: "1 node", "3 nodes".
func plural(k int, noun string) string {
	if k == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", k, noun)
}

// duration returns a duration in words, rounded to seconds.
func duration(d time.Duration) string {
	secs := int(max(0, d).Round(time.Second) / time.Second)
	var parts []string
	for _, u := range []struct {
		secs int
		noun string
	}{{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}} {
		if k := secs / u.secs; k > 0 {
			parts, secs = append(parts, plural(k, u.noun)), secs%u.secs
		}
	}
	if len(parts) == 0 {
		return "0 seconds"
	}
	return strings.Join(parts, " ")
}

// short returns the first 8 characters of an id for a list.
func short(id string) string {
	r := []rune(id)
	return string(r[:min(len(r), 8)])
}

// navEntry is an entry of the menu.
type navEntry struct {
	Page, Word string
	Here       bool
}

// span is a part of a bar, in percent.
type span struct{ X, Width float64 }

func spans(parts []int, of int) []span {
	var out []span
	x := 0.0
	for _, k := range parts {
		width := 100 * float64(k) / float64(max(of, 1))
		out = append(out, span{x, width})
		x += width
	}
	return out
}

// functions are the functions of the templates.
var functions = template.FuncMap{
	"nav": func(p page, name, word string) navEntry { return navEntry{name, word, p.Nav == name} },
	"skew": func(shares []share, of int) []span {
		var parts []int
		for _, s := range shares {
			parts = append(parts, s.Nodes)
		}
		return spans(parts, of)
	},
	"progress": func(nodes []waveNode) []span { // updated, failed, upgrading
		var parts [3]int
		for _, n := range nodes {
			switch n.State {
			case rollout.NodeUpdated:
				parts[0]++
			case rollout.NodeFailed, rollout.NodeRolledBack:
				parts[1]++
			case rollout.NodeCommanded, rollout.NodeUnproven, rollout.NodeDependency:
				parts[2]++
			}
		}
		return spans(parts[:], len(nodes))
	},
	"ago":     func(t time.Time) string { return ago(t, time.Now()) },
	"utc":     utc,
	"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"short":   short,
	"join":    func(s []string) string { return strings.Join(s, ", ") },
	"add":     func(a, b int) int { return a + b },
	"percent": func(part, of int) int { return 100 * part / max(of, 1) },
	"plural":  plural,
	"excerpt": excerpt,
	"cut":     cut,
	"words":   words,
}
