package systemd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// State is the state of a unit, as systemd reports it.
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
	Signaled bool   // the last run was ended by a signal
	Text     string // the service's own status (STATUS=)
	User     string
	// ProtectHome means that the unit hides /home and /root, PrivateTmp that it hides
	// /tmp and /var/tmp.
	ProtectHome, PrivateTmp bool
	// Unmet means that the last start failed because a Condition...= or Assert...= of
	// the unit is not met.
	Unmet bool
	// MaxRun is RuntimeMaxSec=, as systemctl prints it; "" if there is none.
	MaxRun string
}

// QueryState returns the state of a unit, from systemctl. The error says why it is
// unknown. A unit that does not exist is no error: its Load is "not-found".
func QueryState(ctx context.Context, unit string) (State, error) {
	s, _, err := queryState(ctx, unit)
	return s, err
}

// queryState is QueryState, with further properties of the same moment.
func queryState(ctx context.Context, unit string, more ...string) (State, map[string]string, error) {
	if err := Booted(); err != nil {
		return State{}, nil, err
	}
	p, err := show(ctx, unit, append(more, "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "UnitFileState", "StateChangeTimestamp", "ActiveEnterTimestamp",
		"ExecMainStatus", "ExecMainCode", "StatusText", "User", "ProtectHome", "PrivateTmp",
		"ConditionResult", "ConditionTimestamp", "AssertResult", "AssertTimestamp", "RuntimeMaxUSec")...)
	if err != nil {
		return State{}, nil, fmt.Errorf("systemctl does not answer: %w", err)
	}
	return stateOf(unit, p), p, nil
}

func stateOf(unit string, p map[string]string) State {
	s := State{Unit: unit, Load: p["LoadState"], Active: p["ActiveState"], Sub: p["SubState"], Result: p["Result"], Enabled: p["UnitFileState"],
		Since: moment(p["StateChangeTimestamp"]), Text: p["StatusText"], User: p["User"],
		ProtectHome: p["ProtectHome"] == "yes" || p["ProtectHome"] == "tmpfs", PrivateTmp: p["PrivateTmp"] != "no" && p["PrivateTmp"] != ""}
	s.Restarts, _ = strconv.Atoi(p["NRestarts"])
	s.Exit, _ = strconv.Atoi(p["ExecMainStatus"])
	s.Signaled = p["ExecMainCode"] == "2" || p["ExecMainCode"] == "3" // CLD_KILLED, CLD_DUMPED
	// A unit that was never started also has "no", but no time.
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

// CrashLoop reports whether systemd restarts the service again and again. Then the
// service waits for its next start after a failure; or it was restarted several times
// and is up for a moment only, although no upgrade or rollback restarted it. changed
// is when the node reached its upgrade status.
func (s State) CrashLoop(now, changed time.Time) bool {
	if strings.HasPrefix(s.Sub, "auto-restart") {
		return s.Result != "success" || s.Restarts >= loopRestarts
	}
	if s.Active != "active" && s.Active != "activating" || s.Restarts < loopRestarts {
		return false
	}
	return now.Sub(s.Since) < loopTime && !s.FollowsUpgrade(changed)
}

// FollowsUpgrade reports whether the present start belongs to an upgrade or a rollback
// that ended at changed. A version is kept during its start, and rolled back shortly
// before the next one.
func (s State) FollowsUpgrade(changed time.Time) bool {
	return !s.Since.After(changed.Add(15 * time.Second))
}

// EndReason describes how the last run ended, with the likely cause. It returns "" if
// the run succeeded.
func (s State) EndReason() string {
	if s.Unmet && s.Result != "exec-condition" { // whose result is "no" as well
		return "systemd does not start it: a condition of its unit is not met"
	}
	switch s.Result {
	case "success", "":
		return ""
	case "timeout":
		if s.MaxRun != "" {
			return fmt.Sprintf("systemd ended it (result timeout): RuntimeMaxSec=%s is over, or it was not ready in time (TimeoutStartSec=)", s.MaxRun)
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
		return "it was ended by signal " + signalName(strconv.Itoa(s.Exit))
	}
	if why, ok := exitCodes[s.Exit]; ok {
		return fmt.Sprintf("exit code %d/%s", s.Exit, why)
	}
	return fmt.Sprintf("exit code %d", s.Exit)
}

// LoopReason describes why a service in a crash loop ends: EndReason, or RuntimeMaxSec=
// if the service has been restarted meanwhile. It returns "" if neither is known.
func (s State) LoopReason() string {
	if ended := s.EndReason(); ended != "" || s.MaxRun == "" {
		return ended
	}
	return fmt.Sprintf("RuntimeMaxSec=%s lets it run no longer: systemd ends it with the result timeout", s.MaxRun)
}

// StartCommand returns the command that starts a stopped unit, and what to do before
// where systemd would refuse.
func (s State) StartCommand() string {
	switch {
	case s.Load == "masked" || strings.HasPrefix(s.Enabled, "masked"):
		return fmt.Sprintf("systemctl unmask %s && systemctl start %[1]s", s.Unit)
	case s.Unmet || s.Result == "exec-condition":
		return fmt.Sprintf("see the condition that is not met (systemctl status %s), meet or remove it, then: systemctl start %[1]s", s.Unit)
	}
	return "systemctl start " + s.Unit
}

// exitCodes are the exit codes with which systemd itself fails before the program runs
// (systemd.exec(5)), with their usual causes.
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

// Environment returns the variables that Environment= of a unit sets. It leaves out
// values that systemctl prints with quotes.
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
