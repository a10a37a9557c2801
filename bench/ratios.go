package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/bench/payload"
)

// ratio compares the wall time of a row of our agent with another time of the same run. Ratios
// hold where seconds do not.
type ratio struct {
	Row  string `json:"row"`
	Rate int64  `json:"rate_mbit"` // 0: no limit
	To   string `json:"to"`        // the other row, or its CPU time
	// Ratio is the row's wall time, divided by the other time.
	Ratio float64 `json:"ratio"`
}

// partsOf are the rows of the parts of an upgrade, by the form that it installs; the transfer
// comes first.
var partsOf = map[string][]string{
	payload.GzChunks:  {"transfer-gz", "sha256-gz", "gunzip", "write"},
	payload.ZstChunks: {"transfer-zst", "unzstd", "write"},
}

// ratios compares each row with peers at the same speed; those of a limited link with the
// transfer alone; and those without a limit with what this machine could do at best: the slowest
// part alone, or all CPU time shared by all cores. The host runs on the same cores, and so do the
// kernel's threads, which write to the disk.
func (re report) ratios(cpus int) (all []ratio) {
	find := func(name string, rate int64) *result {
		i := slices.IndexFunc(re.Rows, func(r result) bool { return r.Name == name && r.Rate == rate && r.Wall != nil })
		if i < 0 {
			return nil
		}
		return &re.Rows[i]
	}
	for _, r := range re.Rows {
		parts := partsOf[r.Name]
		if r.Wall == nil || parts == nil {
			continue
		}
		to := func(name string, seconds float64) {
			if seconds > 0 {
				all = append(all, ratio{Row: r.Name, Rate: r.Rate, To: name, Ratio: r.Wall.Median / seconds})
			}
		}
		if r.Rate != 0 {
			if t := find(parts[0], r.Rate); t != nil {
				to(t.Name, t.Wall.Median)
			}
			continue
		}
		for _, name := range []string{"rauc", "shell", "shell-igzip"} {
			if peer := find(name, 0); peer != nil {
				to(name, peer.Wall.Median)
			}
		}
		name := fmt.Sprintf("its CPU time, the host's and the kernel's on %d cores", cpus)
		bound := (r.CPU.Median + r.HostCPU.Median + r.KernelCPU.Median) / float64(cpus)
		for _, part := range parts {
			if p := find(part, 0); p != nil && p.Wall.Median > bound {
				name, bound = part, p.Wall.Median
			}
		}
		to(name, bound)
	}
	return all
}

// writeRatios writes the ratios as lines.
func writeRatios(all []ratio) string {
	if len(all) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString("\nwall time, divided by that of:\n\n")
	for _, r := range all {
		fmt.Fprintf(&s, "%-10s  %-11s  %.2f  %s\n", rateName(r.Rate), r.Row, r.Ratio, r.To)
	}
	return s.String()
}
