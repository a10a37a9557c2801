package systemd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LastEnd returns how the previous start of this process's unit ended, from systemd's
// journal: "exit status 3", "killed by signal KILL", "the start timed out". It returns
// "" if that is unknown. The user must be able to read the journal (group
// systemd-journal).
func LastEnd(ctx context.Context) string {
	unit, err := Self()
	if err != nil {
		return ""
	}
	return lastEnd(ctx, unit, os.Getenv("INVOCATION_ID"))
}

// lastEnd is LastEnd of any unit. now is the invocation id of its present start.
func lastEnd(ctx context.Context, unit, now string) string {
	out, err := output(ctx, "journalctl", "--quiet", "--no-pager", "--output=json", "--lines=200", "--unit="+unit, "_PID=1")
	if err != nil {
		return ""
	}
	return endOf(out, now)
}

// lastJob says what the last job of a unit came to, from journalctl's JSON.
func lastJob(out []byte) (why string) {
	in := bufio.NewScanner(bytes.NewReader(out))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e struct {
			Type   string `json:"JOB_TYPE"`
			Result string `json:"JOB_RESULT"`
		}
		if json.Unmarshal(in.Bytes(), &e) != nil || e.Result == "" {
			continue
		}
		switch {
		case e.Result == "dependency":
			why = "a unit that it depends on failed"
		case e.Type == "stop":
			why = "somebody, or another unit, stopped it"
		default:
			why = ""
		}
	}
	return why
}

// Restarts returns how often systemd has restarted the unit of this process by itself since
// an operator, or the boot, started it (NRestarts).
func Restarts(ctx context.Context) (int, error) {
	unit, err := Self()
	if err != nil {
		return 0, err
	}
	return restarts(ctx, unit)
}

func restarts(ctx context.Context, unit string) (int, error) {
	p, err := show(ctx, unit, "NRestarts")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(p["NRestarts"])
	if err != nil {
		return 0, fmt.Errorf("systemctl show %s: NRestarts=%.40q is no number", unit, p["NRestarts"])
	}
	return n, nil
}

// setupFailures are the exit statuses with which systemd itself fails before the program
// runs (systemd.exec(5), "Process Exit Codes").
var setupFailures = map[string]string{
	"200": "the working directory could not be entered",
	"203": "the program could not be executed",
	"208": "the standard input could not be opened",
	"209": "the standard output could not be opened",
	"243": "a credential could not be loaded",
	"216": "the group could not be set",
	"217": "the user could not be set",
	"226": "the sandbox could not be set up",
}

// endOf returns how the last invocation before now ended, from journalctl's JSON.
func endOf(out []byte, now string) string {
	var last, code, status, result string
	in := bufio.NewScanner(bytes.NewReader(out))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e struct {
			Of      string `json:"INVOCATION_ID"`
			Code    string `json:"EXIT_CODE"`
			Status  string `json:"EXIT_STATUS"`
			Command string `json:"COMMAND"`
			Result  string `json:"UNIT_RESULT"`
		}
		if json.Unmarshal(in.Bytes(), &e) != nil || e.Of == "" || e.Of == now {
			continue
		}
		if e.Of != last {
			last, code, status, result = e.Of, "", "", ""
		}
		if e.Code != "" && (e.Command == "" || e.Command == "ExecStart") {
			code, status = e.Code, e.Status
		}
		result = cmp.Or(e.Result, result)
	}
	switch {
	case result == "timeout":
		return "the start timed out"
	case result == "watchdog":
		return "no answer within WatchdogSec="
	case result == "oom-kill":
		return "out of memory"
	case result == "resources":
		return "a file or a directory that the unit names is missing, or there was no memory"
	case code == "exited" && setupFailures[status] != "":
		return fmt.Sprintf("%s (exit status %s)", setupFailures[status], status)
	case code == "exited":
		return "exit status " + status
	case code == "killed" || code == "dumped":
		return "killed by signal " + signalName(status)
	case result == "success" || result == "":
		return ""
	}
	return fmt.Sprintf("systemd's result is %q", result)
}

// signalName returns the name of a signal, "SEGV" for "11". Some versions of systemd write the
// name themselves.
func signalName(status string) string {
	n, err := strconv.Atoi(status)
	if name := unix.SignalName(unix.Signal(n)); err == nil && name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return status
}
