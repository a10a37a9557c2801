package systemd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// State is what systemd says of a unit now.
type State struct {
	Unit     string
	Load     string // "loaded", "not-found", "masked", ...
	Active   string // "active", "inactive", "failed", "activating", ...
	Sub      string // "running", "dead", "auto-restart", ...
	Result   string // of the last run: "success", "exit-code", "timeout", ...
	Restarts int    // by systemd, since an operator last started it
	Enabled  string // UnitFileState
	Since    time.Time
	// Exit is the exit code, or the number of the signal, of the last run.
	Exit     int
	Signaled bool   // by which the last run ended
	Text     string // what the service says of itself (STATUS=)
	User     string
	// ProtectHome and PrivateTmp say that the unit hides /home and /root, or /tmp
	// and /var/tmp.
	ProtectHome, PrivateTmp bool
	// Unmet says that systemd did not start the unit at the last try, because a
	// Condition...= or Assert...= of it is not met.
	Unmet bool
	// MaxRun is RuntimeMaxSec=, as systemctl prints it; "" if there is none.
	MaxRun string
}

// Look asks systemctl for the state of a unit. The error says why it is not
// known.
func Look(ctx context.Context, unit string) (State, error) {
	if err := Booted(); err != nil {
		return State{}, err
	}
	p, err := show(ctx, unit, "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "UnitFileState", "StateChangeTimestamp", "ActiveEnterTimestamp",
		"ExecMainStatus", "ExecMainCode", "StatusText", "User", "ProtectHome", "PrivateTmp",
		"ConditionResult", "ConditionTimestamp", "AssertResult", "AssertTimestamp", "RuntimeMaxUSec")
	if err != nil {
		return State{}, fmt.Errorf("systemctl does not answer: %w", err)
	}
	return stateOf(unit, p), nil
}

func stateOf(unit string, p map[string]string) State {
	s := State{Unit: unit, Load: p["LoadState"], Active: p["ActiveState"], Sub: p["SubState"], Result: p["Result"], Enabled: p["UnitFileState"],
		Since: moment(p["StateChangeTimestamp"]), Text: p["StatusText"], User: p["User"],
		ProtectHome: p["ProtectHome"] == "yes" || p["ProtectHome"] == "tmpfs", PrivateTmp: p["PrivateTmp"] != "no" && p["PrivateTmp"] != ""}
	s.Restarts, _ = strconv.Atoi(p["NRestarts"])
	s.Exit, _ = strconv.Atoi(p["ExecMainStatus"])
	s.Signaled = p["ExecMainCode"] == "2" || p["ExecMainCode"] == "3" // CLD_KILLED, CLD_DUMPED
	// A unit that was never started has "no", too, but no time.
	unmet := func(kind string) bool { return p[kind+"Result"] == "no" && p[kind+"Timestamp"] != "" }
	s.Unmet = s.Active == "inactive" && (unmet("Condition") || unmet("Assert") && p["ConditionResult"] == "yes")
	if v := p["RuntimeMaxUSec"]; v != "infinity" && v != "0" {
		s.MaxRun = v
	}
	if s.Active == "active" {
		s.Since = moment(p["ActiveEnterTimestamp"])
	}
	return s
}

// loopRestarts within loopTime make a crash loop.
const (
	loopRestarts = 3
	loopTime     = 30 * time.Second
)

// CrashLoop reports whether systemd starts the service again and again: it
// waits for the next start after a failure, or was restarted several times and
// came up only now, without an upgrade or a rollback that explains it. now is the
// time of the question; changed is when the upgrade status was reached.
func (s State) CrashLoop(now, changed time.Time) bool {
	if strings.HasPrefix(s.Sub, "auto-restart") {
		return s.Result != "success" || s.Restarts >= loopRestarts
	}
	if s.Active != "active" && s.Active != "activating" || s.Restarts < loopRestarts {
		return false
	}
	return now.Sub(s.Since) < loopTime && !s.Explained(changed)
}

// Explained reports whether an upgrade or a rollback, whose result was reached at
// changed, made the start that runs: a version is kept in its start, and rolled
// back a moment before the next.
func (s State) Explained(changed time.Time) bool {
	return !s.Since.After(changed.Add(15 * time.Second))
}

// Ended describes how the last run ended, and the likely reason; "" if it ended
// well.
func (s State) Ended() string {
	if s.Unmet && s.Result != "exec-condition" { // which has "no" as its result, too
		return "systemd does not start it: a condition of its unit is not met"
	}
	switch s.Result {
	case "success", "":
		return ""
	case "timeout":
		if s.MaxRun != "" {
			return fmt.Sprintf("systemd ended it (result timeout): RuntimeMaxSec=%s was over, or it was not ready in time (TimeoutStartSec=)", s.MaxRun)
		}
		return "it was not ready in time (TimeoutStartSec=)"
	case "watchdog":
		return "it hung: it did not answer systemd's watchdog (WatchdogSec=)"
	case "oom-kill":
		return "it ran out of memory"
	case "start-limit-hit":
		return "systemd gave up: it was started too often (start limit)"
	case "resources":
		return "systemd could not start it: a file or a directory that its unit names is missing, or there is no memory"
	case "protocol":
		return "it did not tell systemd that it is ready (Type=notify)"
	case "exec-condition":
		return "its ExecCondition= did not let it start"
	case "exit-code", "signal", "core-dump":
	default:
		return fmt.Sprintf("systemd's result is %q", s.Result)
	}
	if s.Signaled {
		return fmt.Sprintf("it was ended by signal %d", s.Exit)
	}
	if why, ok := exitCodes[s.Exit]; ok {
		return fmt.Sprintf("exit code %d/%s", s.Exit, why)
	}
	return fmt.Sprintf("exit code %d", s.Exit)
}

// Looping describes why a service in a crash loop ended: Ended, or, when it was
// started again meanwhile, the setting that may have ended it; "" if neither is
// known.
func (s State) Looping() string {
	if ended := s.Ended(); ended != "" || s.MaxRun == "" {
		return ended
	}
	return fmt.Sprintf("RuntimeMaxSec=%s lets it run no longer: systemd ends it with the result timeout", s.MaxRun)
}

// Start returns the command that starts a stopped unit, or what to do before it
// where systemd does not start the unit.
func (s State) Start() string {
	switch {
	case s.Load == "masked" || strings.HasPrefix(s.Enabled, "masked"):
		return fmt.Sprintf("systemctl unmask %s && systemctl start %[1]s", s.Unit)
	case s.Unmet || s.Result == "exec-condition":
		return fmt.Sprintf("see the condition that is not met (systemctl status %s), meet or remove it, then: systemctl start %[1]s", s.Unit)
	}
	return "systemctl start " + s.Unit
}

// exitCodes are those that systemd itself ends a service with before its
// program runs (systemd.exec(5)), and their usual reasons.
var exitCodes = map[int]string{
	200: "CHDIR: the directory of WorkingDirectory= is missing, or its user may not enter it",
	203: "EXEC: the program cannot be executed: it is missing, is not executable by the service's user, is for another machine, or is on a file system mounted noexec",
	214: "SETSCHEDULER: the scheduling policy of the unit is not allowed",
	216: "GROUP: a group of the unit does not exist",
	217: "USER: the user of the unit does not exist",
	218: "CAPABILITIES: the capabilities of the unit cannot be set",
	225: "NETWORK: the network namespace of the unit cannot be made",
	226: "NAMESPACE: the sandbox cannot be made: a path that the unit names, such as one of ReadWritePaths=, is missing",
	228: "SECCOMP: the system call filter cannot be set",
	238: "STATE_DIRECTORY: the state directory cannot be made",
}

// Environment returns the variables that Environment= of a unit sets to plain
// values: those that systemctl prints without quotes.
func Environment(ctx context.Context, unit string) (map[string]string, error) {
	p, err := show(ctx, unit, "Environment")
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for word := range strings.FieldsSeq(p["Environment"]) {
		if k, v, ok := strings.Cut(word, "="); ok && !strings.ContainsAny(word, "\"'\\") {
			env[k] = v
		}
	}
	return env, nil
}

// Tail returns the last n lines of the unit's journal, oldest first. The user
// must be able to read the journal: root, or group systemd-journal.
func Tail(ctx context.Context, unit string, n int) ([]string, error) {
	out, err := output(ctx, "journalctl", "--quiet", "--no-pager", "--output=cat", fmt.Sprintf("--lines=%d", n), "--unit="+unit)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			lines = append(lines, strings.ToValidUTF8(line[:min(len(line), maxLine)], ""))
		}
	}
	return lines, nil
}
