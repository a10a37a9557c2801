package systemd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Properties of the watchdog's own unit, and of the unit that repeats starts, stand among
// those of the service behind these prefixes.
const (
	guardPrefix = "watchdog unit "
	retryPrefix = "retry unit "
)

// addGuard adds these properties to p. It adds none if systemd does not answer; the error
// says that there was no answer in time.
func (s Service) addGuard(ctx context.Context, p map[string]string) error {
	guard, err1 := show(ctx, watchdogUnit(s.Unit), "LoadState", "ExecStart", "Wants")
	retry, err2 := show(ctx, retryUnit(s.Unit), "LoadState")
	if err := errors.Join(err1, err2); err != nil {
		return unanswered(err)
	}
	for k, v := range guard {
		p[guardPrefix+k] = v
	}
	p[retryPrefix+"LoadState"] = retry["LoadState"]
	return nil
}

// checkGuard checks that systemd starts the watchdog's own unit before the service. Without
// it, a start that fails before the first command of the service is not counted. That is no
// reason to refuse upgrades, since units of earlier versions have none.
func (u unit) checkGuard() []Problem {
	name := watchdogUnit(u.Unit)
	problem := func(format string, args ...any) []Problem {
		return []Problem{{Check: name, Cause: fmt.Sprintf(format, args...) + ": a start that systemd skips, or that fails before the first command of " + u.Unit + ", is not counted",
			Remedy: "write the units again: " + strings.Replace(u.writeCommand(), u.reloadCommand(), "systemctl daemon-reload", 1)}}
	}
	if u.p["DefaultDependencies"] == "no" { // see Unit.Early
		if slices.Contains(strings.Fields(u.p["After"]), name) {
			return []Problem{{Check: name, Cause: fmt.Sprintf("%s has DefaultDependencies=no and After=%s, which starts later: systemd breaks such a cycle at boot by starting one of the two only", u.Unit, name),
				Remedy: "write the units again: " + strings.Replace(u.writeCommand(), u.reloadCommand(), "systemctl daemon-reload", 1)}}
		}
		return nil
	}
	switch state := u.p[guardPrefix+"LoadState"]; {
	case state == "masked":
		return []Problem{{Check: name, Cause: name + " is masked", Remedy: "run: systemctl unmask " + name}}
	case state != "loaded":
		return problem("there is no %s, the watchdog in a unit of its own", name)
	case !slices.Contains(strings.Fields(u.p["Wants"]), name) || !slices.Contains(strings.Fields(u.p["After"]), name):
		return problem("%s does not have Wants=%[2]s and After=%[2]s", u.Unit, name)
	case u.p[retryPrefix+"LoadState"] != "loaded" || !slices.Contains(strings.Fields(u.p[guardPrefix+"Wants"]), retryUnit(u.Unit)):
		return problem("%s does not start %s, or there is none", name, retryUnit(u.Unit))
	}
	want := filepath.Join(u.Layout.LastGood(), u.Binary)
	ours := slices.ContainsFunc(execLines(u.p[guardPrefix+"ExecStart"]), func(e execLine) bool {
		in, inside := u.below(e.path)
		program := !inside
		if u.kind == linked {
			program = inside && (in == want || u.Binary == "" && strings.HasPrefix(in, want+"/"))
		}
		return program && e.ignored && len(e.args) > 3 && e.args[1] == "watchdog" && e.args[2] == "--before" && e.args[3] == u.Unit && resolve(rootOf(e.args)) == u.real
	})
	if !ours {
		return problem("%s does not run the watchdog of %s for %s", name, u.Layout.Root(), u.Unit)
	}
	return nil
}
