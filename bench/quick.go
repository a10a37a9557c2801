package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// What --quick asserts.
const (
	maxPeakRSS     = 32 << 20 // while a tarball of --size is staged
	maxOverhead    = 128_000  // bytes of the manifest, its signature and TLS handshakes
	writtenPercent = 105      // of the payload, plus the download
	sentPercent    = 103      // of the file: TLS and HTTP
)

// check returns an error if a row of our agent breaks a limit of bytes or memory. It
// looks at no times, because the machine may be busy. It prints what it checked.
// With noSkip a power cut that could not be tried is an error, too.
func check(w io.Writer, rows []*row, unpacked int64, noSkip bool) error {
	var errs []error
	fmt.Fprintln(w)
	checked := 0
	limit := func(r *row, what string, got, most int64) {
		checked++
		verdict := "ok"
		if got > most {
			verdict = "BROKEN"
			errs = append(errs, fmt.Errorf("%s: %s: %d, the limit is %d", r.name, what, got, most))
		}
		fmt.Fprintf(w, "%-7s %s: %s: %d, at most %d\n", verdict, r.name, what, got, most)
	}
	for _, r := range rows {
		if !r.bounds {
			continue
		}
		if len(r.runs) == 0 {
			errs = append(errs, fmt.Errorf("%s: %s", r.name, oneLine(r.why)))
			fmt.Fprintf(w, "%-7s %s: %s\n", "NOT RUN", r.name, oneLine(r.why))
			continue
		}
		for _, runs := range r.runs {
			for _, s := range runs {
				if r.group == groupMemory {
					limit(r, "peak RSS in bytes", s.PeakRSS, maxPeakRSS)
					continue
				}
				if s.Written == 0 {
					fmt.Fprintf(w, "%-7s %s: bytes written: the file system counts none; choose another with --dir\n", "NOT RUN", r.name)
				} else {
					most := unpacked*writtenPercent/100 + r.size
					if r.resumed { // what is fetched again is written again
						most += r.again
					}
					if r.rewrites { // also what the first process had unpacked
						most += unpacked
					}
					limit(r, "bytes written", s.Written, most)
				}
				again := int64(0)
				if r.resumed {
					again = r.again
				}
				limit(r, "bytes transferred", s.sent, (r.size+again)*sentPercent/100+maxOverhead)
			}
		}
		tried := !strings.HasPrefix(r.survive, notTried)
		if r.group != groupMemory && strings.HasPrefix(r.survive, "no") && (tried || noSkip) {
			errs = append(errs, fmt.Errorf("%s: survives a power cut: %s", r.name, r.survive))
		}
	}
	if checked == 0 {
		errs = append(errs, errors.New("nothing was checked"))
	}
	return errors.Join(errs...)
}
