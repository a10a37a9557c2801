package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/bench/measure"
)

// Each form of ours is compared with peers, with the transfer of a limited link, and with the
// larger of its slowest part and of all CPU time on all cores; never with a row of another form
// or speed, or with one that was not measured.
func TestRatios(t *testing.T) {
	t.Parallel()
	var rows []*row
	measured := func(name string, rate int64, wall, cpu, host float64) {
		s := func(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
		r := &row{name: name}
		r.record(rate, sample{Usage: measure.Usage{Wall: s(wall), CPU: s(cpu)}, hostCPU: s(host / 2), kernelCPU: s(host / 2)})
		rows = append(rows, r)
	}
	measured("gz+chunks", 0, 0.4, 0.6, 0.2)
	measured("zst+chunks", 0, 0.3, 0.2, 0.1)
	measured("shell", 0, 1.2, 1, 1)
	measured("transfer-gz", 0, 5, 1, 1)
	rows[3].runs[100] = rows[3].runs[0]
	measured("unzstd", 0, 0.2, 1, 1)
	measured("gunzip", 0, 0.25, 1, 1)
	measured("zst+chunks", 100, 3, 1, 1)
	measured("transfer-zst", 100, 2, 1, 1)
	rows = append(rows, &row{name: "rauc", why: "not installed"}, &row{name: "shell-igzip", why: "not installed"})
	b := &bench{o: options{rates: []int64{0, 100}}, release: newRelease(t)}
	re := b.report(rows)
	var got []string
	for _, r := range re.ratios(2) {
		got = append(got, fmt.Sprintf("%s at %d: %.2f of %s", r.Row, r.Rate, r.Ratio, r.To))
	}
	want := `gz+chunks at 0: 0.33 of shell
gz+chunks at 0: 0.08 of transfer-gz
zst+chunks at 0: 0.25 of shell
zst+chunks at 0: 1.50 of unzstd
zst+chunks at 100: 1.50 of transfer-zst`
	if strings.Join(got, "\n") != want {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	for _, r := range re.Rows {
		if r.Name == "transfer-gz" && r.Rate == 0 {
			r.Wall.Median = 0.1
		}
	}
	if r := re.ratios(2)[1]; r.To != "its CPU time, the host's and the kernel's on 2 cores" || fmt.Sprintf("%.2f", r.Ratio) != "1.00" {
		t.Errorf("%+v", r)
	}
	if r := re.ratios(4)[1]; r.To != "gunzip" || fmt.Sprintf("%.2f", r.Ratio) != "1.60" {
		t.Errorf("%+v", r)
	}
}
