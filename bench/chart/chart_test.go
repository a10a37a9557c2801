package chart_test

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/bench/chart"
)

func TestTick(t *testing.T) {
	t.Parallel()
	for most, want := range map[float64]float64{1: 0.2, 0.9: 0.2, 1.2: 0.2, 4.4: 1, 35: 10, 0.02: 0.005, 0: 0, -1: 0} {
		if got := chart.Tick(most); math.Abs(got-want) > 1e-9 {
			t.Errorf("Tick(%v) = %v, want %v", most, got, want)
		}
	}
	for most := 0.001; most < 10_000; most *= 1.1 {
		if n := math.Floor(most / chart.Tick(most)); n < 3 || n > 8 {
			t.Errorf("Tick(%v) makes %v marks", most, n)
		}
	}
	if chart.Tick(math.Inf(1)) != 0 || chart.Tick(math.NaN()) != 0 {
		t.Error("an axis without an end has marks")
	}
}

// The document is well formed, and nothing lies outside of its 700 pixels.
func TestSVG(t *testing.T) {
	t.Parallel()
	c := chart.Chart{
		Title: `Seconds & "spread" <all>`, Note: strings.Repeat("a note of many words ", 20),
		Panels: []chart.Panel{
			{Title: "no limit", Bars: []chart.Bar{
				{Name: "zst+chunks-resumed", Kind: chart.Ours, Value: 0.25, Min: 0.2, Max: 0.3},
				{Name: "existing", Value: 3.5, Min: 3.1, Max: 12.75, Remark: "lost by a power cut"},
				{Name: "write", Kind: chart.Limit, Value: 0, Min: 0, Max: 0},
			}},
			{Title: "nothing", Bars: []chart.Bar{{Name: "zero"}}},
			{Title: "empty"},
		},
	}
	svg := chart.SVG(c)
	if svg != chart.SVG(c) {
		t.Error("the same chart gives other bytes")
	}
	height, texts := 0.0, ""
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch x := tok.(type) {
		case xml.CharData:
			texts += string(x) + "\n"
		case xml.StartElement:
			at := map[string]float64{}
			for _, a := range x.Attr {
				if v, err := strconv.ParseFloat(a.Value, 64); err == nil {
					at[a.Name.Local] = v
					if math.IsNaN(v) || math.IsInf(v, 0) {
						t.Errorf("%s has %s=%s", x.Name.Local, a.Name.Local, a.Value)
					}
				}
			}
			if x.Name.Local == "svg" {
				height = at["height"]
				if at["width"] != 700 {
					t.Errorf("the width is %v", at["width"])
				}
				continue
			}
			if at["x"] < 0 || at["x"]+at["width"] > 700 || at["y"] < 0 || at["y"]+at["height"] > height || at["width"] < 0 {
				t.Errorf("%s is outside: %v", x.Name.Local, at)
			}
			if size, ok := at["font-size"]; ok && size < 12 {
				t.Errorf("a text of %v pixels is not readable", size)
			}
		}
	}
	for _, want := range []string{c.Title, "no limit", "3.50  lost by a power cut", "zst+chunks-resumed"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// The longest label ends within the chart.
func TestLabelsFit(t *testing.T) {
	t.Parallel()
	svg := chart.SVG(chart.Chart{Panels: []chart.Panel{{Bars: []chart.Bar{{Value: 100, Min: 90, Max: 100, Remark: "lost by a power cut"}}}}})
	_, rest, _ := strings.Cut(svg, `text-anchor="start">100.00  lost`)
	if rest == "" {
		t.Fatal("there is no label")
	}
	before := svg[:len(svg)-len(rest)]
	x, err := strconv.Atoi(strings.SplitN(before[strings.LastIndex(before, `x="`)+3:], `"`, 2)[0])
	if err != nil {
		t.Fatal(err)
	}
	const perLetter = 7.2 // of a sans-serif font of 13 pixels, at most
	if end := float64(x) + perLetter*float64(len("100.00  lost by a power cut")); end > 700 {
		t.Errorf("the label ends at %v", end)
	}
}
