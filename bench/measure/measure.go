// Package measure runs commands and sums up what they used.
//
// It measures one command at a time. It reads no state of earlier runs, and does not
// judge a result.
package measure

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Usage is what one run of a command used, with the children that it waited for.
type Usage struct {
	Wall       time.Duration
	CPU        time.Duration // user and system
	PeakRSS    int64         // of its largest process, in bytes
	Written    int64         // bytes to a disk
	WrittenHow string        // where Written comes from
	Exit       int
}

// Command is a command to measure.
type Command struct {
	Args []string
	Dir  string
	Env  []string // added to the environment
	// Started makes the measure begin when the command has started, as a service has: it writes
	// to its standard output then, and goes on when there is a line in its standard input.
	Started bool
	// Services, if set, is a file with the ids of running processes that do work for the
	// command; what they use meanwhile is added.
	Services string
	// Kill, if set, ends the command when it is closed.
	Kill <-chan struct{}
}

// ErrExit is the error of a command that failed.
var ErrExit = errors.New("the command failed")

// Run runs the command with the program runner. Its error wraps ErrExit, and has the
// command's last words, if the command failed.
func Run(ctx context.Context, runner string, c Command) (Usage, error) {
	dir, err := os.MkdirTemp("", "bench-run")
	if err != nil {
		return Usage{}, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "usage.json")
	args := append([]string{"-out", out, "-also", c.Services, fmt.Sprintf("-started=%t", c.Started), "--"}, c.Args...)
	cmd := exec.CommandContext(ctx, runner, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir, cmd.Env = c.Dir, append(cmd.Environ(), c.Env...)
	said := &tail{max: 2000}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		return Usage{}, err
	}
	ended := make(chan struct{})
	killer := make(chan struct{})
	go func() {
		defer close(killer)
		select {
		case <-c.Kill: // nil blocks for ever
			cmd.Process.Signal(syscall.SIGTERM)
		case <-ended:
		}
	}()
	err = cmd.Wait()
	close(ended)
	<-killer
	if err != nil {
		return Usage{}, fmt.Errorf("%w: %s", err, said.text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	if err := json.Unmarshal(b, &u); err != nil {
		return Usage{}, err
	}
	if u.Exit != 0 {
		err = fmt.Errorf("%w: exit status %d: %s", ErrExit, u.Exit, said.text)
	}
	return u, err
}

// tail keeps the last bytes that are written to it.
type tail struct {
	text []byte
	max  int
}

func (t *tail) Write(b []byte) (int, error) {
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-t.max):]
	return len(b), nil
}

// Summary is the median of some values, and their spread.
type Summary[T cmp.Ordered] struct {
	Median T `json:"median"`
	Min    T `json:"min"`
	Max    T `json:"max"`
}

// Summarise returns the Summary of values, of which there is at least one. The median of
// an even number of values is the lower one of the two in the middle, so that it is a
// value that was measured.
func Summarise[T cmp.Ordered](values []T) Summary[T] {
	s := slices.Sorted(slices.Values(values))
	return Summary[T]{Median: s[(len(s)-1)/2], Min: s[0], Max: s[len(s)-1]}
}
