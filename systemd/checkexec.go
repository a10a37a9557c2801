package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// watchdogSetting returns the setting that runs the watchdog of this kind of service.
func (u unit) watchdogSetting() string {
	if u.kind == attached {
		return "ExecCondition"
	}
	return "ExecStartPre"
}

// checkWatchdog checks that the watchdog of this root comes first in its setting, with
// the "-".
func (u unit) checkWatchdog() []Problem {
	key := u.watchdogSetting()
	problem := func(remedy, format string, args ...any) []Problem {
		return []Problem{{Rollback: true, Remedy: remedy, Cause: fmt.Sprintf(format, args...)}}
	}
	lines := execLines(u.p[key])
	i := slices.IndexFunc(lines, func(e execLine) bool { return len(e.args) > 1 && e.args[1] == "watchdog" })
	if i < 0 {
		what := "is empty"
		if len(lines) > 0 {
			what = "runs " + lines[0].path
		}
		for _, e := range lines {
			if e.wraps("watchdog") {
				return problem(u.rewriteRemedy(key), "%s runs the watchdog in %s= through a wrapper (%s): when that fails, or waits, the start is not counted; it must be the command itself", u.Unit, key, e.path)
			}
		}
		return problem(u.rewriteRemedy(key), "%s does not run the watchdog in %s= (it %s), so its starts are not counted and a bad version restarts forever", u.Unit, key, what)
	}
	e := lines[i]
	if root := rootOf(e.args); root == "" || resolve(root) != u.real {
		return problem(u.rewriteRemedy(key), "the watchdog in %s= of %s is for another install root (%s), so its starts are not counted", key, u.Unit, root)
	}
	if problems := u.watchdogProgram(key, e); problems != nil {
		return problems
	}
	if !e.ignored {
		return problem(fmt.Sprintf("put a \"-\" before its path in %s=%s, then run: %s", key, strings.Replace(u.fromFile(key), "from", "of", 1), u.reloadCommand()),
			"the watchdog in %s= of %s lacks the leading \"-\": a watchdog that fails would keep the service from starting", key, u.Unit)
	}
	for _, before := range lines[:i] {
		if !before.ignored {
			return problem(fmt.Sprintf("put the watchdog first, or a \"-\" before %s in %s=, then run: %s", before.path, key, u.reloadCommand()),
				"%s runs %s before the watchdog in %s=: when that fails, the start is not counted", u.Unit, before.path, key)
		}
	}
	return nil
}

// checkCondition finds a condition of an attached service that each version brings with it.
// When it fails, systemd skips the start, as it does where an operator's own condition is not
// met: nobody could tell a version that refuses to start.
func (u unit) checkCondition() (out []Problem) {
	for _, e := range execLines(u.p["ExecCondition"]) {
		if e.ignored || !slices.ContainsFunc(append([]string{e.path}, e.args...), u.names) {
			continue
		}
		key := "ExecCondition"
		out = append(out, Problem{Rollback: true, Remedy: fmt.Sprintf("use ExecStartPre= in place of %s=%s, then run: %s", key, strings.Replace(u.fromFile(key), "from", "of", 1), u.reloadCommand()),
			Cause: fmt.Sprintf("%s has %s=%s, which belongs to the version: a version that it keeps from starting would look stopped by its operator", u.Unit, key, strings.Join(e.args, " "))})
	}
	return out
}

// watchdogProgram checks which program the watchdog runs.
func (u unit) watchdogProgram(key string, e execLine) []Problem {
	problem := func(remedy, format string, args ...any) []Problem {
		return []Problem{{Rollback: true, Remedy: remedy, Cause: fmt.Sprintf(format, args...)}}
	}
	in, inside := u.below(e.path)
	if u.kind != attached {
		want := filepath.Join(u.Layout.LastGood(), u.Binary)
		if u.Binary == "" && inside && strings.HasPrefix(in, want+"/") || u.Binary != "" && in == want {
			return nil
		}
		return problem(u.rewriteRemedy(key), "the watchdog in %s= of %s is %s, not %s: a version that cannot run must not be its own watchdog", key, u.Unit, e.path, want)
	}
	if inside {
		return problem(u.rewriteRemedy(key), "the watchdog in %s= of %s is %s, inside the install root: root must run nothing there", key, u.Unit, e.path)
	}
	if u.agent != "" && resolve(u.agent) != resolve(e.path) {
		return problem(u.rewriteRemedy(key), "the watchdog in %s= of %s is %s, but the agent is %s", key, u.Unit, e.path, u.agent)
	}
	if st, err := os.Stat(e.path); os.IsNotExist(err) || err == nil && st.Mode()&0o111 == 0 {
		return problem("install edge-agent as "+e.path+", or "+u.rewriteRemedy(key), "the watchdog of %s cannot run: %s is missing or not executable", u.Unit, e.path)
	}
	if ex := u.p["ExecConditionEx"]; strings.Contains(ex, " watchdog ") && !strings.Contains(ex, "privileged") {
		if uid, ok := UserID(u.p["User"]); ok && uid != 0 {
			if owner, known := u.owner(); known && owner != uid {
				return problem(u.rewriteRemedy(key), "the watchdog in %s= of %s lacks the \"+\": as %s it cannot write to %s", key, u.Unit, u.p["User"], u.Layout.Root())
			}
		}
	}
	return nil
}

// wraps reports whether an argument of the command is word, as in a shell script.
func (e execLine) wraps(word string) bool {
	return slices.ContainsFunc(e.args, func(a string) bool { return strings.Trim(a, "\"';&|()") == word })
}

// rootOf returns the value of --root, or "".
func rootOf(args []string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--root="); ok {
			return v
		}
		if a == "--root" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// names reports whether an argument of a command names a path below current.
func (u unit) names(arg string) bool {
	for word := range strings.FieldsSeq(arg) {
		if in, ok := u.below(strings.Trim(word, `"'`)); ok && strings.HasPrefix(in, u.Layout.Current()+"/") {
			return true
		}
	}
	return false
}

// checkExecStart checks that the unit starts the program in the current version.
func (u unit) checkExecStart() []Problem {
	current := u.Layout.Current()
	want := filepath.Join(current, u.Binary)
	problem := func(format string, args ...any) []Problem {
		remedy := u.rewriteRemedy("ExecStart")
		if u.kind == attached {
			remedy = "set ExecStart=" + want + " in " + u.Unit + ", then run: " + u.reloadCommand()
		}
		return []Problem{{Rollback: true, Remedy: remedy, Cause: fmt.Sprintf(format, args...)}}
	}
	lines := execLines(u.p["ExecStart"])
	if len(lines) != 1 {
		return problem("%s starts %d programs in ExecStart=, not one", u.Unit, len(lines))
	}
	e := lines[0]
	in, inside := u.below(e.path)
	switch {
	case inside && strings.HasPrefix(in, current+"/"):
		if u.Binary != "" && in != want && u.kind == linked {
			return problem("%s starts %s, but service.binary is %s: the check of a new version would run another program", u.Unit, e.path, u.Binary)
		}
		return nil
	case inside:
		return problem("%s starts %s, a fixed version: an upgrade or a rollback would change nothing; it must start %s", u.Unit, e.path, want)
	}
	wraps := slices.ContainsFunc(e.args, u.names)
	if wraps && u.kind == attached { // an interpreter
		return nil
	}
	if wraps {
		return problem("%s starts the service through %s: systemd would watch that program, not the service; it must start %s", u.Unit, e.path, want)
	}
	return problem("%s starts %s, which is not below %s, so an upgrade would change nothing; it must start %s", u.Unit, e.path, current, want)
}
