package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bilbycast/edge-agent/bench/chart"
	"github.com/bilbycast/edge-agent/bench/measure"
)

// report is the result of a run, as --json writes it. Sizes are in bytes, times in seconds.
type report struct {
	Time     time.Time `json:"time"`
	Machine  string    `json:"machine"`
	Payload  payloadOf `json:"payload"`
	Versions []string  `json:"versions"`
	AptGet   string    `json:"apt_get,omitempty"` // installs the peers that are missing
	Rows     []result  `json:"rows"`
	Ratios   []ratio   `json:"ratios,omitempty"`
}

type payloadOf struct {
	Files    int   `json:"files"`
	Unpacked int64 `json:"unpacked"`
	TarGz    int64 `json:"tar_gz"`
	TarZst   int64 `json:"tar_zst"`
	// OwnZst: release-manifest wrote no tar.zst, and the benchmark made one for the peers.
	OwnZst bool `json:"own_zst,omitempty"`
}

// result is one row at one speed of the link.
type result struct {
	Name        string                    `json:"name"`
	Group       string                    `json:"group"`
	Form        string                    `json:"form"`
	Rate        int64                     `json:"rate_mbit"` // 0: no limit
	NotMeasured string                    `json:"not_measured,omitempty"`
	Runs        int                       `json:"runs,omitempty"`
	Wall        *measure.Summary[float64] `json:"wall,omitempty"`
	CPU         *measure.Summary[float64] `json:"cpu,omitempty"`
	HostCPU     *measure.Summary[float64] `json:"host_cpu,omitempty"`   // of the release host meanwhile
	KernelCPU   *measure.Summary[float64] `json:"kernel_cpu,omitempty"` // of the kernel's threads meanwhile
	PeakRSS     *measure.Summary[int64]   `json:"peak_rss,omitempty"`
	Transferred *measure.Summary[int64]   `json:"transferred,omitempty"`
	Written     *measure.Summary[int64]   `json:"written,omitempty"`
	WrittenHow  string                    `json:"written_how,omitempty"`
	// PowerCut tells what a power cut right after the end leaves: "yes", "no: lost" (the
	// previous version is there), "no: DAMAGED", or "not tried" with a reason.
	PowerCut string `json:"survives_power_cut,omitempty"`
}

func (b *bench) report(rows []*row) report {
	size := func(file string) int64 {
		st, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	kernel, _ := exec.Command("uname", "-sr").Output()
	slices.Sort(b.versions)
	slices.Sort(b.missing)
	re := report{
		Time:     time.Now().UTC().Truncate(time.Second),
		Machine:  fmt.Sprintf("%s, %d CPUs, %s, %s", strings.TrimSpace(string(kernel)), runtime.NumCPU(), runtime.GOARCH, runtime.Version()),
		Payload:  payloadOf{b.files, b.unpacked, size(b.release.TarGz), size(b.release.TarZst), b.release.OwnZst},
		Versions: slices.Compact(b.versions),
	}
	if missing := slices.Compact(b.missing); len(missing) > 0 {
		re.AptGet = "apt-get install --no-install-recommends " + strings.Join(missing, " ")
	}
	for _, rate := range b.o.rates {
		for _, r := range rows {
			if runs := r.runs[rate]; len(runs) > 0 {
				re.Rows = append(re.Rows, summed(r, rate, runs))
			} else if r.why != "" && (rate == b.o.rates[0] || !r.unlimited) {
				re.Rows = append(re.Rows, result{Name: r.name, Group: r.group, Form: r.form, Rate: rate, NotMeasured: oneLine(r.why)})
			}
		}
	}
	re.Ratios = re.ratios(runtime.NumCPU())
	return re
}

func summed(r *row, rate int64, runs []sample) result {
	return result{
		Name: r.name, Group: r.group, Form: r.form, Rate: rate, Runs: len(runs),
		Wall:        each(runs, func(s sample) float64 { return s.Wall.Seconds() }),
		CPU:         each(runs, func(s sample) float64 { return s.CPU.Seconds() }),
		HostCPU:     each(runs, func(s sample) float64 { return s.hostCPU.Seconds() }),
		KernelCPU:   each(runs, func(s sample) float64 { return s.kernelCPU.Seconds() }),
		PeakRSS:     each(runs, func(s sample) int64 { return s.PeakRSS }),
		Transferred: each(runs, func(s sample) int64 { return s.sent }),
		Written:     each(runs, func(s sample) int64 { return s.Written }),
		WrittenHow:  runs[0].WrittenHow,
		PowerCut:    oneLine(r.survive),
	}
}

func each[T int64 | float64](runs []sample, value func(sample) T) *measure.Summary[T] {
	values := make([]T, len(runs))
	for i, s := range runs {
		values[i] = value(s)
	}
	x := measure.Summarise(values)
	return &x
}

// oneLine returns a reason on one line, which may have the last words of a program.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	const half = 200
	if len(text) > 2*half {
		text = strings.ToValidUTF8(text[:half]+" ... "+text[len(text)-half:], "")
	}
	return text
}

func rateName(mbit int64) string {
	if mbit == 0 {
		return "no limit"
	}
	return fmt.Sprintf("%d Mbit/s", mbit)
}

// write writes the tables, in Markdown.
func (re report) write(w io.Writer) error {
	var s strings.Builder
	p := re.Payload
	fmt.Fprintf(&s, "%s; %s\n", re.Time.Format(time.RFC3339), re.Machine)
	fmt.Fprintf(&s, "payload: %d files, %.1f MB; tar.gz %.1f MB, tar.zst %.1f MB", p.Files, mb(p.Unpacked), mb(p.TarGz), mb(p.TarZst))
	if p.OwnZst {
		s.WriteString(" (made by the benchmark: release-manifest of this checkout writes none)")
	}
	fmt.Fprintf(&s, "\nversions: %s\n", strings.Join(re.Versions, "; "))
	for _, how := range re.written() {
		fmt.Fprintf(&s, "written: %s\n", how)
	}
	if re.AptGet != "" {
		fmt.Fprintf(&s, "missing: %s\n", re.AptGet)
	}
	for i, r := range re.Rows {
		if i == 0 || r.Rate != re.Rows[i-1].Rate {
			fmt.Fprintf(&s, "\n%s:\n\n", rateName(r.Rate))
			s.WriteString(table(slices.Collect(func(yield func(result) bool) {
				for _, x := range re.Rows {
					if x.Rate == r.Rate && !yield(x) {
						return
					}
				}
			})))
		}
	}
	s.WriteString(writeRatios(re.Ratios))
	_, err := io.WriteString(w, s.String())
	return err
}

func (re report) written() (hows []string) {
	for _, r := range re.Rows {
		if r.WrittenHow != "" && !slices.Contains(hows, r.WrittenHow) {
			hows = append(hows, r.WrittenHow)
		}
	}
	return hows
}

func mb(n int64) float64 { return float64(n) / 1e6 }

func table(rows []result) string {
	cells := [][]string{{"row", "group", "wall s (min..max)", "CPU s", "host CPU s", "kernel CPU s", "peak RSS MiB", "transferred MB", "written MB", "survives a power cut"}}
	var reasons strings.Builder
	for _, r := range rows {
		if r.NotMeasured != "" {
			cells = append(cells, []string{r.Name, r.Group, "not measured", "", "", "", "", "", "", ""})
			fmt.Fprintf(&reasons, "not measured: %s: %s\n", r.Name, r.NotMeasured)
			continue
		}
		cut, reason, _ := strings.Cut(r.PowerCut, ": ")
		if cut == notTried && reason != "" {
			fmt.Fprintf(&reasons, "power cut not tried: %s: %s\n", r.Name, reason)
			r.PowerCut = notTried
		}
		cells = append(cells, []string{
			r.Name, r.Group, fmt.Sprintf("%.2f (%.2f..%.2f)", r.Wall.Median, r.Wall.Min, r.Wall.Max),
			fmt.Sprintf("%.2f", r.CPU.Median), fmt.Sprintf("%.2f", r.HostCPU.Median), fmt.Sprintf("%.2f", r.KernelCPU.Median),
			fmt.Sprintf("%.1f", float64(r.PeakRSS.Max)/(1<<20)), fmt.Sprintf("%.1f", mb(r.Transferred.Median)), fmt.Sprintf("%.1f", mb(r.Written.Median)), r.PowerCut,
		})
	}
	width := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var s strings.Builder
	for n, row := range cells {
		for i, c := range row {
			fmt.Fprintf(&s, "| %-*s ", width[i], c)
		}
		s.WriteString("|\n")
		if n == 0 {
			for _, w := range width {
				s.WriteString("| " + strings.Repeat("-", w) + " ")
			}
			s.WriteString("|\n")
		}
	}
	if reasons.Len() > 0 {
		s.WriteString("\n" + reasons.String())
	}
	return s.String()
}

// save writes the files that have a name.
func (re report) save(jsonFile, svgFile string) error {
	var errs []error
	if jsonFile != "" {
		b, err := json.MarshalIndent(re, "", "  ")
		errs = append(errs, err, os.WriteFile(jsonFile, append(b, '\n'), 0o644))
	}
	if svgFile != "" {
		errs = append(errs, os.WriteFile(svgFile, []byte(chart.SVG(re.chart())), 0o644))
	}
	return errors.Join(errs...)
}

// chart shows the wall times.
func (re report) chart() chart.Chart {
	c := chart.Chart{
		Title: "One upgrade: seconds, median and spread",
		Note:  fmt.Sprintf("Payload %.0f MB in %d files. %s. %s.", mb(re.Payload.Unpacked), re.Payload.Files, re.Machine, re.Time.Format("2006-01-02")),
	}
	kinds := map[string]chart.Kind{groupOurs: chart.Ours, groupPeer: chart.Other, groupLegacy: chart.Other, groupLimit: chart.Limit}
	for _, r := range re.Rows {
		if r.Wall == nil || r.Group == groupMemory {
			continue
		}
		if n := len(c.Panels); n == 0 || c.Panels[n-1].Title != rateName(r.Rate) {
			c.Panels = append(c.Panels, chart.Panel{Title: rateName(r.Rate)})
		}
		p := &c.Panels[len(c.Panels)-1]
		bar := chart.Bar{Name: r.Name, Kind: kinds[r.Group], Value: r.Wall.Median, Min: r.Wall.Min, Max: r.Wall.Max}
		if strings.HasPrefix(r.PowerCut, "no") {
			bar.Remark = "lost by a power cut"
		}
		p.Bars = append(p.Bars, bar)
	}
	return c
}
