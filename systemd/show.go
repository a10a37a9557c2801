package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// runtimeDir exists if systemd is the init system (sd_booted(3)).
const runtimeDir = "/run/systemd/system"

// Booted returns nil if systemd is the init system, or an error.
func Booted() error {
	if _, err := os.Stat(runtimeDir); err != nil {
		return fmt.Errorf("this machine does not run systemd: there is no %s", runtimeDir)
	}
	return nil
}

// SetsExecPID reports whether systemd runs here, in a version that sets SYSTEMD_EXEC_PID
// for the processes that it executes: 248 or later.
func SetsExecPID(ctx context.Context) bool {
	if Booted() != nil {
		return false
	}
	out, err := output(ctx, "systemctl", "--version")
	fields := strings.Fields(string(out))
	if err != nil || len(fields) < 2 {
		return false
	}
	version, err := strconv.Atoi(fields[1])
	return err == nil && version >= 248
}

// show returns properties of a unit, from systemctl.
func show(ctx context.Context, unit string, names ...string) (map[string]string, error) {
	out, err := output(ctx, "systemctl", "show", "-p", strings.Join(names, ","), "--", unit)
	if err != nil {
		return nil, err
	}
	return properties(string(out)), nil
}

// showAll is show for several units, in their order, which waits that long for the answer.
func showAll(ctx context.Context, wait time.Duration, units []string, names ...string) ([]map[string]string, error) {
	out, err := outputWithin(ctx, wait, "systemctl", append([]string{"show", "-p", strings.Join(names, ","), "--"}, units...)...)
	if err != nil {
		return nil, err
	}
	blocks := strings.Split(strings.TrimSpace(string(out)), "\n\n") // one a unit
	if len(blocks) != len(units) {
		return nil, fmt.Errorf("systemctl show: %d answers for %d units", len(blocks), len(units))
	}
	var all []map[string]string
	for _, block := range blocks {
		all = append(all, properties(block))
	}
	return all, nil
}

// properties parses the output of systemctl show. A setting with several values, like
// ExecStartPre=, has a line for each; the result joins them with newlines.
func properties(text string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if have, ok := values[k]; ok {
			v = have + "\n" + v
		}
		values[k] = v
	}
	return values
}

// execLine is one command of ExecStart=, ExecStartPre= or ExecCondition=.
type execLine struct {
	path    string
	args    []string // with the program's own name first
	ignored bool     // "-": the exit code does not matter
}

// execLines parses the commands of a setting, one a line.
func execLines(value string) []execLine {
	var out []execLine
	for line := range strings.Lines(value) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "{"))
		if line == "" {
			continue
		}
		var e execLine
		for part := range strings.SplitSeq(line, " ; ") {
			k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch {
			// The first of each: an argument may look like another.
			case k == "path" && e.path == "":
				e.path = v
			case k == "argv[]" && e.args == nil:
				e.args = strings.Fields(v)
			case k == "ignore_errors":
				e.ignored = v == "yes"
			}
		}
		out = append(out, e)
	}
	return out
}

// duration parses a time span as systemctl prints it, like "1min 30s". It reports false
// for "infinity" and for any other text.
func duration(s string) (time.Duration, bool) {
	if s == "0" {
		return 0, true
	}
	units := map[string]time.Duration{
		"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour,
		"d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "month": 2629800 * time.Second, "y": 31557600 * time.Second,
	}
	var total time.Duration
	for part := range strings.FieldsSeq(s) {
		number := strings.TrimRight(part, "abcdefghijklmnopqrstuvwxyz")
		unit, known := units[part[len(number):]]
		n, err := strconv.ParseFloat(number, 64)
		if !known || err != nil {
			return 0, false
		}
		total += time.Duration(n * float64(unit))
	}
	return total, s != ""
}

// moment parses a time as systemctl prints it with TZ=UTC. It returns the zero time for
// any other text.
func moment(s string) time.Time {
	t, err := time.Parse("Mon 2006-01-02 15:04:05 MST", s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Program returns the path of a program of the system. The caller's PATH does not matter:
// after `su` without a dash it lacks the sbin directories. If there is no such program,
// the result is name.
func Program(name string) string {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if path := dir + "/" + name; isProgram(path) {
			return path
		}
	}
	return name
}

// isProgram reports whether path is a file that somebody may execute.
func isProgram(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// answerTime limits each question to systemd.
const answerTime = 5 * time.Second

// systemEnv is the environment of the programs of the system: their answers are in English,
// with times in UTC.
var systemEnv = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC"}

// output runs a program of the system for at most answerTime, and returns its standard
// output. An error that says that there was no answer in time is a noAnswer.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	return outputWithin(ctx, answerTime, name, args...)
}

// outputWithin is output with another limit.
func outputWithin(ctx context.Context, wait time.Duration, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, Program(name), args...)
	cmd.WaitDelay = time.Second
	cmd.Env, cmd.Stdin = systemEnv, strings.NewReader("") // a nil Stdin needs /dev/null
	out, err := cmd.Output()
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, noAnswer{fmt.Errorf("%s: no answer within %v", name, wait)}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// noAnswer is the error of a question that systemd did not answer in time. It proves
// nothing: the caller asks again, and decides nothing by it.
type noAnswer struct{ error }

// Timeout is true, as of the errors of package net. Package agent asks for it.
func (noAnswer) Timeout() bool { return true }

func (e noAnswer) Unwrap() error { return e.error }

// unanswered returns err if it is a noAnswer, or nil.
func unanswered(err error) error {
	if errors.As(err, new(noAnswer)) {
		return err
	}
	return nil
}
