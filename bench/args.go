package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// options are the flags.
type options struct {
	json, svg   string
	dir         string
	payload     string
	sizeMB      int64   // of the padded payload whose peak memory is measured; 0: none
	rates       []int64 // Mbit/s; 0: no limit
	runs        int     // without a limit
	limitedRuns int     // at each limited rate
	only        []string
	quick       bool
	noCut       bool
}

const usage = `usage: go run ./bench [flags]

Measures upgrades by our agent, by other updaters that are installed, and the limits of
this machine, interleaved in one run. See docs/performance.md.

`

// parseArgs reads the flags. Its error is flag.ErrHelp, or has been written to w.
func parseArgs(args []string, w io.Writer) (options, error) {
	var o options
	var rates, only string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(w)
	f.Usage = func() {
		fmt.Fprint(w, usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.json, "json", "", "`FILE` for the results as JSON")
	f.StringVar(&o.svg, "svg", "", "`FILE` for a chart")
	f.StringVar(&o.dir, "dir", os.TempDir(), "`DIR` to work in; its disk is what is measured")
	f.StringVar(&o.payload, "payload", "", "`DIR` to install; default: programs of the Go toolchain, about 108 MB")
	f.Int64Var(&o.sizeMB, "size", 0, "also measure the peak memory with a tarball of so many `MB`")
	f.StringVar(&rates, "rates", "0,100,10", "speeds of the link in `Mbit/s`; 0: no limit")
	f.IntVar(&o.runs, "runs", 7, "`N` runs of each row without a limit")
	f.IntVar(&o.limitedRuns, "limited-runs", 3, "`N` runs of each row at each limited speed, where times differ less")
	f.StringVar(&only, "only", "", "`NAMES` of the rows to measure, separated by commas; default: all")
	f.BoolVar(&o.quick, "quick", false, "a subset of three minutes: exits with 1 if bytes or memory break their limits")
	f.BoolVar(&o.noCut, "no-cut", false, "do not cut the power of a disk")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	err := func() (err error) {
		if f.NArg() > 0 {
			return fmt.Errorf("unexpected %q", f.Arg(0))
		}
		if o.rates, err = parseRates(rates); err != nil {
			return fmt.Errorf("-rates: %w", err)
		}
		if o.runs < 1 || o.limitedRuns < 1 {
			return errors.New("-runs and -limited-runs must be 1 or more")
		}
		if o.sizeMB < 0 || o.sizeMB > 10_000 {
			return errors.New("-size is outside 0 to 10000")
		}
		if o.only = words(only); only != "" && len(o.only) == 0 {
			return errors.New("-only: no row is given")
		}
		for _, file := range []string{o.json, o.svg} { // before an hour of work
			if st, err := os.Stat(filepath.Dir(file)); err != nil {
				return fmt.Errorf("%s cannot be written: %w", file, err)
			} else if !st.IsDir() {
				return fmt.Errorf("%s cannot be written: %s is no directory", file, filepath.Dir(file))
			}
			if st, err := os.Stat(file); err == nil && st.IsDir() {
				return fmt.Errorf("%s cannot be written: it is a directory", file)
			}
		}
		o.dir, err = filepath.Abs(o.dir)
		return err
	}()
	if err != nil {
		fmt.Fprintln(w, "bench:", err)
		return o, err
	}
	if o.quick {
		set := map[string]bool{}
		f.Visit(func(f *flag.Flag) { set[f.Name] = true })
		o.quickDefaults(set)
	}
	return o, nil
}

// quickDefaults replaces the defaults of flags that were not set.
func (o *options) quickDefaults(set map[string]bool) {
	if !set["rates"] {
		o.rates = []int64{0}
	}
	if !set["runs"] {
		o.runs = 1
	}
	if !set["size"] {
		o.sizeMB = 500
	}
	if !set["only"] {
		o.only = []string{"gz", "gz+chunks", "zst+chunks", "gz-resumed", "gz+chunks-resumed", "zst+chunks-resumed", "shell", "existing"}
	}
}

func parseRates(text string) (rates []int64, err error) {
	for _, w := range words(text) {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil || n < 0 || n > 1_000_000 {
			return nil, fmt.Errorf("%q is not a number of Mbit/s from 0 to 1000000", w)
		}
		if slices.Contains(rates, n) {
			return nil, fmt.Errorf("%d appears twice", n)
		}
		rates = append(rates, n)
	}
	if len(rates) == 0 {
		return nil, errors.New("no speed is given")
	}
	return rates, nil
}

func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

// unknown returns the first name of o.only that no row has; "": none.
func (o options) unknown(rows []*row) string {
	for _, name := range o.only {
		if !slices.ContainsFunc(rows, func(r *row) bool { return r.name == name }) {
			return name
		}
	}
	return ""
}

// wants reports whether a row was asked for.
func (o options) wants(name string) bool { return len(o.only) == 0 || slices.Contains(o.only, name) }
