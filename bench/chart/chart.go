// Package chart draws bars with their spread as SVG.
//
// A chart is 700 pixels wide and readable at that width, also in black and white. It
// uses no script and no font of its own. The same Chart gives the same bytes.
package chart

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// Kind is how a bar is filled.
type Kind int

const (
	Other Kind = iota // other updaters
	Ours              // our agent
	Limit             // one part of the work alone
)

// Bar is a value with its spread; Min <= Value <= Max.
type Bar struct {
	Name            string
	Kind            Kind
	Value, Min, Max float64
	Remark          string // beside the value
}

// Panel is bars on one axis that begins at 0.
type Panel struct {
	Title string
	Bars  []Bar
}

// Chart is panels, one below the other.
type Chart struct {
	Title, Note string
	Panels      []Panel
}

// In pixels.
const (
	width  = 700
	left   = 172 // where bars begin
	right  = 490 // where the longest spread ends
	step   = 22  // from bar to bar
	height = 14  // of a bar
)

// style is on the elements themselves, because some viewers drop style sheets.
var fills = map[Kind]string{Other: "#8a94a0", Ours: "#1f6feb", Limit: "#d5dae0"}

// SVG returns the chart as an SVG document.
func SVG(c Chart) string {
	var s strings.Builder
	y := 30
	text := func(x, y int, anchor, attributes, value string) {
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, attributes, escape(value))
	}
	text(16, y, "start", ` font-size="17" font-weight="bold"`, c.Title)
	y += 22
	x := 16
	for _, k := range []struct {
		kind Kind
		name string
		wide int
	}{{Ours, "our agent", 100}, {Other, "others", 80}, {Limit, "one part alone", 120}} {
		fmt.Fprintf(&s, `<rect x="%d" y="%d" width="12" height="12" fill="%s" stroke="#57606a"/>`+"\n", x, y-10, fills[k.kind])
		text(x+18, y, "start", "", k.name)
		x += k.wide
	}
	for _, p := range c.Panels {
		y += 34
		text(16, y, "start", ` font-size="15" font-weight="bold"`, p.Title)
		y += 10
		most := 0.0
		for _, b := range p.Bars {
			most = max(most, b.Max)
		}
		tick := Tick(most)
		at := func(v float64) float64 {
			if most == 0 {
				return left
			}
			return left + v/most*(right-left)
		}
		bottom := y + len(p.Bars)*step
		for v := 0.0; v <= most && tick > 0; v += tick {
			fmt.Fprintf(&s, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#d0d7de"/>`+"\n", at(v), y, at(v), bottom+4)
			text(int(math.Round(at(v))), bottom+18, "middle", ` font-size="12"`, trim(v))
		}
		for _, b := range p.Bars {
			y += step
			top := y - height - 2
			text(left-8, y-4, "end", "", b.Name)
			fmt.Fprintf(&s, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s" stroke="#57606a"/>`+"\n", left, top, at(b.Value)-left, height, fills[b.Kind])
			middle := top + height/2
			fmt.Fprintf(&s, `<path d="M%.1f %dH%.1fM%.1f %dv8M%.1f %dv8" stroke="#24292f" fill="none"/>`+"\n", at(b.Min), middle, at(b.Max), at(b.Min), middle-4, at(b.Max), middle-4)
			label := fmt.Sprintf("%.2f", b.Value)
			if b.Remark != "" {
				label += "  " + b.Remark
			}
			text(int(at(b.Max))+8, y-4, "start", "", label)
		}
		y = bottom + 22
	}
	y += 24
	for _, line := range wrap(c.Note, 105) {
		text(16, y, "start", ` font-size="12" fill="#57606a"`, line)
		y += 16
	}
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s" font-family="sans-serif" font-size="13" fill="#24292f">`,
		width, y, width, y, escape(c.Title))
	return head + "\n" + fmt.Sprintf(`<rect width="%d" height="%d" fill="#ffffff"/>`, width, y) + "\n" + s.String() + "</svg>\n"
}

// Tick returns the distance of the marks on an axis up to most: 1, 2 or 5 times a power
// of ten, so that there are three to eight marks; 0 if most is not positive.
func Tick(most float64) float64 {
	if !(most > 0) || math.IsInf(most, 0) {
		return 0
	}
	power := math.Pow(10, math.Floor(math.Log10(most/3)))
	for _, n := range []float64{5, 2, 1} {
		if most/(n*power) >= 3 {
			return n * power
		}
	}
	return power
}

// trim writes a mark without zeroes that say nothing.
func trim(v float64) string { return fmt.Sprintf("%.4g", v) }

func escape(text string) string {
	var s strings.Builder
	xml.EscapeText(&s, []byte(text))
	return s.String()
}

// wrap breaks text into lines of at most limit bytes, between words.
func wrap(text string, limit int) (lines []string) {
	line := ""
	for _, w := range strings.Fields(text) {
		if line != "" && len(line)+1+len(w) > limit {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + w)
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
