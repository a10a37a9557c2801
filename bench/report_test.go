package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/bench/measure"
)

func used(seconds float64, peak, written int64) measure.Usage {
	return measure.Usage{Wall: time.Duration(seconds * float64(time.Second)), CPU: time.Second / 2, PeakRSS: peak, Written: written, WrittenHow: "a counter"}
}

func ours(name string) *row {
	return &row{name: name, group: groupOurs, bounds: true, size: 40_000_000, again: 2 << 20, survive: survived}
}

func TestReport(t *testing.T) {
	t.Parallel()
	gz := ours("gz")
	gz.record(0, sample{used(0.5, 20<<20, 150_000_000), 40_100_000, 40_000_000, time.Second / 20, time.Second / 50})
	gz.record(0, sample{used(0.9, 22<<20, 150_000_000), 40_100_000, 40_000_000, time.Second / 20, time.Second / 50})
	gz.record(0, sample{used(0.6, 18<<20, 150_000_000), 40_100_000, 40_000_000, time.Second / 20, time.Second / 50})
	gz.record(10, sample{used(32, 18<<20, 150_000_000), 40_100_000, 40_000_000, time.Second / 20, time.Second / 50})
	other := &row{name: "rauc", group: groupPeer, why: "not installed: rauc"}
	emulated := &row{name: "existing", group: groupLegacy, survive: lost}
	emulated.record(0, sample{used(0.4, 50<<20, 108_000_000), 40_100_000, 0, time.Second / 20, time.Second / 50})
	untried := ours("zst+chunks")
	untried.survive = notTried + ": needs root"
	untried.record(0, sample{used(0.2, 26<<20, 108_000_000), 30_000_000, 30_000_000, time.Second / 20, time.Second / 50})

	b := &bench{o: options{rates: []int64{0, 10}}, versions: []string{"b 2", "a 1", "b 2"}, missing: []string{"rauc", "curl", "rauc"}}
	b.release = newRelease(t)
	re := b.report([]*row{gz, untried, other, emulated})
	var out bytes.Buffer
	if err := re.write(&out); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"no limit:", "10 Mbit/s:", "versions: a 1; b 2", "written: a counter",
		"missing: apt-get install --no-install-recommends curl rauc",
		"| gz | ours | 0.60 (0.50..0.90) | 0.50 | 0.05 | 0.02 | 22.0 | 40.1 | 150.0 | yes |",
		"| zst+chunks | ours | 0.20 (0.20..0.20) | 0.50 | 0.05 | 0.02 | 26.0 | 30.0 | 108.0 | not tried |",
		"| existing | existing agent | 0.40 (0.40..0.40) | 0.50 | 0.05 | 0.02 | 50.0 | 40.1 | 108.0 | no: lost |",
		"| rauc | peer | not measured |", "not measured: rauc: not installed: rauc",
		"power cut not tried: zst+chunks: needs root",
		"| gz | ours | 32.00 (32.00..32.00) |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}

	dir := t.TempDir()
	jsonFile, svgFile := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.svg")
	if err := re.save(jsonFile, svgFile); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Rows) != 6 || back.Rows[0].Wall.Median != 0.6 || back.Rows[2].NotMeasured == "" {
		t.Errorf("%s", data)
	}
	svg, err := os.ReadFile(svgFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"zst+chunks", "0.40  lost by a power cut", "10 Mbit/s"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the chart has no %q", want)
		}
	}
	if strings.Contains(string(svg), ">rauc<") {
		t.Error("the chart has a row that was not measured")
	}
	if err := re.save(filepath.Join(dir, "none", "r.json"), ""); err == nil {
		t.Error("a file that cannot be written is no error")
	}
}

func TestQuickLimits(t *testing.T) {
	t.Parallel()
	const unpacked = 100_000_000
	for name, c := range map[string]struct {
		row  *row
		s    sample
		want string // of the error; "": none
	}{
		"good":                   {ours("gz"), sample{used(1, 99<<20, 144_000_000), 40_500_000, 0, 0, 0}, ""},
		"writes too much":        {ours("gz"), sample{used(1, 1, 146_000_000), 40_500_000, 0, 0, 0}, "bytes written: 146000000, the limit is 145000000"},
		"fetches too much":       {ours("gz"), sample{used(1, 1, 1), 42_000_000, 0, 0, 0}, "bytes transferred: 42000000"},
		"resumed, written twice": {&row{name: "r", bounds: true, resumed: true, size: 40_000_000, again: 2 << 20}, sample{used(1, 1, 200_000_000), 42_000_000, 0, 0, 0}, "bytes written"},
		"where it must be":       {&row{name: "r", bounds: true, resumed: true, rewrites: true, size: 40_000_000, again: 2 << 20}, sample{used(1, 1, 200_000_000), 42_000_000, 0, 0, 0}, ""},
		"resumed":                {&row{name: "r", bounds: true, resumed: true, size: 40_000_000, again: 2 << 20}, sample{used(1, 1, 1), 42_000_000, 0, 0, 0}, ""},
		"resumed, too much":      {&row{name: "r", bounds: true, resumed: true, size: 40_000_000, again: 2 << 20}, sample{used(1, 1, 1), 44_000_000, 0, 0, 0}, "bytes transferred"},
		"memory":                 {&row{name: "m", bounds: true, group: groupMemory}, sample{used(1, 32<<20, 1e9), 1e9, 0, 0, 0}, ""},
		"too much memory":        {&row{name: "m", bounds: true, group: groupMemory}, sample{used(1, 33<<20, 1e9), 1e9, 0, 0, 0}, "peak RSS"},
		"damaged":                {&row{name: "d", bounds: true, survive: damaged}, sample{used(1, 1, 1), 1, 0, 0, 0}, "power cut"},
		"a peer":                 {&row{name: "p"}, sample{used(1, 1<<40, 1<<40), 1 << 40, 0, 0, 0}, "nothing was checked"},
	} {
		c.row.record(0, c.s)
		err := check(&bytes.Buffer{}, []*row{c.row}, unpacked, false)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	failed := ours("gz")
	failed.why = "the command failed"
	if err := check(&bytes.Buffer{}, []*row{failed}, unpacked, false); err == nil || !strings.Contains(err.Error(), "gz: the command failed") {
		t.Errorf("a row that failed: %v", err)
	}
	untried := ours("gz")
	untried.survive = notTried + ": needs root"
	untried.record(0, sample{used(1, 1, 1), 1, 0, 0, 0})
	for _, noSkip := range []bool{false, true} {
		if err := check(&bytes.Buffer{}, []*row{untried}, unpacked, noSkip); (err != nil) != noSkip {
			t.Errorf("a power cut that was not tried, noSkip %t: %v", noSkip, err)
		}
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	if got := oneLine(" a\n  b\tc "); got != "a b c" {
		t.Errorf("%q", got)
	}
	if got := oneLine("begin " + strings.Repeat("\u00e9", 1000) + " end"); len(got) > 420 || !strings.HasPrefix(got, "begin") || !strings.HasSuffix(got, " end") {
		t.Errorf("%q", got)
	}
}
