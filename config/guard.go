package config

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Limits of the functions of the author's that read a configuration. No agent runs yet, and
// systemd waits for the start. openLimit leaves time for the copy after a decodeLimit.
const (
	openLimit   = 30 * time.Second
	decodeLimit = 10 * time.Second
)

// read is what a function that reads a configuration returns.
type read struct {
	settings Settings
	config   Config
	warnings Warnings
	err      error
}

// guarded calls f, a function of the author's. A panic, a call of runtime.Goexit and one that
// takes longer than most become errors. Nothing waits for a call that takes longer.
func guarded(name string, most time.Duration, f func() read) read {
	done := make(chan read, 1)
	go func() {
		r := read{err: fmt.Errorf("%s ended its goroutine", name)}
		defer func() {
			if v := recover(); v != nil {
				r = read{err: fmt.Errorf("%s panicked%s: %.300s", name, panicPlace(), fmt.Sprint(v))}
			}
			done <- r
		}()
		r = f()
	}()
	limit := time.NewTimer(most)
	defer limit.Stop()
	select {
	case r := <-done:
		return r
	case <-limit.C:
		return read{err: fmt.Errorf("%s did not return within %v", name, most)}
	}
}

// panicPlace returns where the panic began that is being recovered: " in FUNCTION (FILE:LINE)".
func panicPlace() string {
	pc := make([]uintptr, 64)
	frames := runtime.CallersFrames(pc[:runtime.Callers(0, pc)])
	panicking := false
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicking = true
		case panicking && !strings.HasPrefix(f.Function, "runtime."):
			return fmt.Sprintf(" in %s (%s:%d)", f.Function, filepath.Base(f.File), f.Line)
		}
		if !more {
			return ""
		}
	}
}

// Open calls open, or the function Open if open is nil. A panic is an error, and so is a call that
// takes longer than 30 s.
func (open Opener) Open(path string) (Settings, Warnings, error) {
	if open == nil {
		return Open(path)
	}
	r := guarded("the function that opens the configuration", openLimit, func() (r read) {
		r.settings, r.warnings, r.err = open(path)
		return r
	})
	return r.settings, r.warnings, r.err
}
