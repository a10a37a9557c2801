package systemd

import (
	"fmt"
	"slices"
	"strings"
)

// checkRequests checks the units by which an attached agent restarts its service: the one that
// waits for requests, the one that serves them, and whether the agent's unit starts the
// first. agent is nil if that is unknown.
func (u unit) checkRequests(path, serve, agent map[string]string) Report {
	name := restartPath(u.Unit)
	r := Report{Checks: []string{name}}
	add := func(rollback bool, remedy, format string, args ...any) {
		r.Problems = append(r.Problems, Problem{Check: name, Rollback: rollback, Remedy: remedy, Cause: fmt.Sprintf(format, args...)})
	}
	const lost = "%s is %s, so %s could not be restarted into a new version"
	switch {
	case path["LoadState"] == "masked":
		add(true, "run: systemctl unmask "+name+" && systemctl enable --now "+name, lost, name, "masked", u.Unit)
	case path["LoadState"] == "not-found":
		add(true, u.rewriteRequests(), lost, name, "missing", u.Unit)
	case path["ActiveState"] != "active":
		add(true, "run: systemctl enable --now "+name, lost, name, path["ActiveState"], u.Unit)
	case path["UnitFileState"] == "disabled":
		add(false, "run: systemctl enable "+name, "%s is not enabled: it does not run after a reboot", name)
	}
	if path["LoadState"] != "loaded" {
		return r
	}
	switch serves := restartUnit(u.Unit); {
	case serve["LoadState"] == "masked":
		add(true, "run: systemctl unmask "+serves, lost, serves, "masked", u.Unit)
	case serve["LoadState"] == "not-found":
		add(true, u.rewriteRequests(), lost, serves, "missing", u.Unit)
	default:
		if old := u.earlier(path, serve, agent); old != "" {
			add(false, u.rewriteRequests(), "%s", old)
		}
	}
	return r
}

// earlier describes what the units lack that an earlier edge-agent wrote, or returns "".
func (u unit) earlier(path, serve, agent map[string]string) string {
	var lacks []string
	if strings.Contains(path["Paths"], "(PathExists") {
		lacks = append(lacks, fmt.Sprintf("%s has PathExists=, which starts %s again and again while that fails", restartPath(u.Unit), restartUnit(u.Unit)))
	}
	if !slices.ContainsFunc(execLines(serve["ExecStart"]), func(e execLine) bool {
		return len(e.args) > 1 && e.args[1] == "restart" && resolve(rootOf(e.args)) == u.real
	}) {
		lacks = append(lacks, fmt.Sprintf("%s does not compare which start is to end, so it may restart a healthy one, or start a service that an operator stopped", restartUnit(u.Unit)))
	}
	if agent["LoadState"] == "loaded" && !slices.Contains(strings.Fields(agent["Wants"]), restartPath(u.Unit)) {
		lacks = append(lacks, fmt.Sprintf("the unit of the agent does not have Wants=%s, so nothing starts that again when it has failed", restartPath(u.Unit)))
	}
	return strings.Join(lacks, "; ")
}

// rewriteRequests returns how to renew these units. The service itself need not be restarted.
func (u unit) rewriteRequests() string {
	agent := strings.TrimSuffix(u.Unit, ".service") + "-agent.service"
	apply := fmt.Sprintf("systemctl daemon-reload && systemctl enable %[1]s && systemctl restart %[1]s %[2]s", restartPath(u.Unit), agent)
	return "write the units again: " + strings.Replace(u.writeCommand(), u.reloadCommand(), apply, 1)
}
