package systemd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checkLoaded reports whether systemd has the unit, or the problem.
func (u unit) checkLoaded() (Problem, bool) {
	p := Problem{Check: "unit file", Rollback: true}
	switch u.p["LoadState"] {
	case "loaded":
		return p, true
	case "masked":
		p.Cause, p.Remedy = u.Unit+" is masked, so nothing can start it", "run: systemctl unmask "+u.Unit+" && systemctl enable --now "+u.Unit
	case "not-found":
		p.Cause, p.Remedy = "there is no unit "+u.Unit, "write it: "+u.writeCommand()+" && systemctl enable "+u.Unit
	default:
		p.Cause = fmt.Sprintf("systemd cannot load %s (LoadState=%s %s)", u.Unit, u.p["LoadState"], u.p["LoadError"])
		p.Remedy = "see what is wrong with it: systemd-analyze verify " + u.Unit
		if own := u.checkType(); u.kind == attached && len(own) > 0 {
			p.Cause, p.Remedy = p.Cause+": "+own[0].Cause, own[0].Remedy+"; or, if the service is not to be upgraded, remove /etc/systemd/system/"+u.Unit+".d/50-edge-agent.conf and run: systemctl daemon-reload"
		}
	}
	return p, false
}

func (u unit) checkReload() []Problem {
	if u.p["NeedDaemonReload"] != "yes" {
		return nil
	}
	return []Problem{{Cause: "the files of " + u.Unit + " changed on disk, and systemd still uses the previous ones", Remedy: "run: " + u.reloadCommand()}}
}

func (u unit) checkEnabled() []Problem {
	switch state := u.p["UnitFileState"]; state {
	case "disabled":
		return []Problem{{Cause: u.Unit + " is disabled: it does not start after a reboot", Remedy: "run: systemctl enable " + u.Unit}}
	case "masked", "masked-runtime":
		return []Problem{{Cause: u.Unit + " is masked: nothing can start it again", Remedy: "run: systemctl unmask " + u.Unit + " && systemctl enable " + u.Unit}}
	case "enabled-runtime", "linked-runtime":
		return []Problem{{Cause: u.Unit + " is enabled until the next reboot only", Remedy: "run: systemctl enable " + u.Unit}}
	}
	return nil
}

func (u unit) checkRestart() (out []Problem) {
	if v := u.p["Restart"]; v != "always" {
		out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "Restart", "always"),
			Cause: fmt.Sprintf("%s has Restart=%s: it stays stopped when a new version is to start, or a bad one to be rolled back", u.Unit, v)})
	}
	if v := u.p["RestartPreventExitStatus"]; v != "" {
		out = append(out, Problem{Rollback: true, Remedy: "remove RestartPreventExitStatus=" + u.fromFile("RestartPreventExitStatus") + ", then run: " + u.reloadCommand(),
			Cause: fmt.Sprintf("%s has RestartPreventExitStatus=%s: a version that ends with it is not restarted", u.Unit, v)})
	}
	if u.p["RemainAfterExit"] == "yes" {
		out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "RemainAfterExit", "no"),
			Cause: u.Unit + " has RemainAfterExit=yes: systemd does not restart it when it ends with exit code 0"})
	}
	if u.p["RestartUSec"] == "infinity" {
		out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "RestartSec", "0.1"),
			Cause: u.Unit + " has RestartSec=infinity: it is never started again"})
	}
	if wait, ok := duration(u.p["RestartUSec"]); ok && wait > maxRestartWait {
		out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "RestartSec", "0.1"),
			Cause: fmt.Sprintf("%s has RestartSec=%s: it is down for that long before each start of a new version or of a rollback", u.Unit, u.p["RestartUSec"])})
	}
	if steps := u.p["RestartSteps"]; steps != "" && steps != "0" {
		if wait, ok := duration(u.p["RestartMaxDelayUSec"]); ok && wait > maxRestartWait {
			out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "RestartSteps", "0"),
				Cause: fmt.Sprintf("%s has RestartMaxDelaySec=%s: after some failures it is down for that long before each start", u.Unit, u.p["RestartMaxDelayUSec"])})
		}
	}
	return out
}

// maxRestartWait is the longest acceptable wait between two starts. A trial may wait
// several times.
const maxRestartWait = 10 * time.Minute

// checkFileSize finds a limit on the size of files. The kernel kills a process that
// exceeds it, which would fail a trial.
func (u unit) checkFileSize() []Problem {
	for _, limit := range []string{u.p["LimitFSIZESoft"], u.p["LimitFSIZE"]} {
		if limit != "" && limit != "infinity" {
			return []Problem{{Rollback: true, Remedy: u.setRemedy("Service", "LimitFSIZE", "infinity"),
				Cause: fmt.Sprintf("%s has LimitFSIZE=%s: the service is killed when it writes a larger file, such as a release", u.Unit, limit)}}
		}
	}
	return nil
}

// checkKillMode finds a unit whose stop leaves processes behind. One of the old version
// would answer in place of the new one.
func (u unit) checkKillMode() (out []Problem) {
	if mode := u.p["KillMode"]; mode == "process" || mode == "none" {
		out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "KillMode", "control-group"),
			Cause: fmt.Sprintf("%s has KillMode=%s: processes of the old version still run beside the new one, and may answer in its place", u.Unit, mode)})
	}
	if u.p["SendSIGKILL"] == "no" {
		out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "SendSIGKILL", "yes"),
			Cause: u.Unit + " has SendSIGKILL=no: a process of the old version that ignores SIGTERM still runs beside the new one, and may answer in its place"})
	}
	if u.kind == attached && u.p["TimeoutStopUSec"] == "infinity" {
		out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "TimeoutStopSec", "90"),
			Cause: u.Unit + " has TimeoutStopSec=infinity: a version that ignores SIGTERM could not be stopped for a rollback"})
	}
	return out
}

// fromFile returns " from " and the file that sets key, or else the unit.
func (u unit) fromFile(key string) string {
	if file := u.fileWith(key); file != "" {
		return " from " + file
	}
	return " from " + u.Unit
}

func (u unit) checkLimits() []Problem {
	interval, burst := u.p["StartLimitIntervalUSec"], u.p["StartLimitBurst"]
	if interval == "" || interval == "0" || burst == "" || burst == "0" {
		return nil
	}
	return []Problem{{Rollback: true, Remedy: u.setRemedy("Unit", "StartLimitIntervalSec", "0"),
		Cause: fmt.Sprintf("%s is started at most %s times in %s, which could end its restarts before the start that rolls back; StartLimitIntervalSec=0 is missing", u.Unit, burst, interval)}}
}

func (u unit) checkType() (out []Problem) {
	t := u.p["Type"]
	if u.kind == attached {
		if t == "oneshot" {
			out = append(out, Problem{Rollback: true, Cause: u.Unit + " has Type=oneshot: it is not up after its program ended, so a version could not prove healthy",
				Remedy: u.setRemedy("Service", "Type", "exec")})
		}
		return out
	}
	if t != "notify" && t != "notify-reload" {
		out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "Type", "notify"),
			Cause: fmt.Sprintf("%s has Type=%s: systemd does not wait for a version on trial, and does not end one that hangs", u.Unit, t)})
	}
	if u.p["NotifyAccess"] == "none" {
		out = append(out, Problem{Rollback: true, Remedy: u.setRemedy("Service", "NotifyAccess", "main"),
			Cause: u.Unit + " has NotifyAccess=none: systemd does not hear that the service is ready"})
	}
	return out
}

func (u unit) checkTimeout() []Problem {
	have, ok := duration(u.p["TimeoutStartUSec"])
	if !ok || u.Window == 0 || have >= u.Window {
		return nil
	}
	secs := strconv.Itoa(int(u.Window / time.Second))
	return []Problem{{Rollback: true, Remedy: u.setRemedy("Service", "TimeoutStartSec", secs),
		Cause: fmt.Sprintf("%s has TimeoutStartSec=%s, shorter than boot_health_window_secs (%s s): systemd would end a healthy version in its trial", u.Unit, u.p["TimeoutStartUSec"], secs)}}
}

// checkStopTimeout finds a stop that ends before the service may have drained: first before an
// upgrade, and then at its end.
func (u unit) checkStopTimeout() []Problem {
	have, ok := duration(u.p["TimeoutStopUSec"])
	if !ok || have >= 2*u.Drain {
		return nil
	}
	want := Unit{DrainSecs: int(u.Drain / time.Second)}.stopSecs()
	return []Problem{{Remedy: u.setRemedy("Service", "TimeoutStopSec", strconv.Itoa(want)),
		Cause: fmt.Sprintf("%s has TimeoutStopSec=%s, shorter than drain_secs (%v) twice: systemd would kill the service while it drains", u.Unit, u.p["TimeoutStopUSec"], u.Drain)}}
}

func (u unit) checkWatchdogSec() []Problem {
	have, ok := duration(u.p["WatchdogUSec"])
	switch {
	case !ok || have == 0:
		return []Problem{{Remedy: u.setRemedy("Service", "WatchdogSec", "30"), Cause: u.Unit + " has no WatchdogSec=: systemd does not restart an agent that hangs"}}
	case have < 2*time.Second:
		return []Problem{{Rollback: true, Remedy: u.setRemedy("Service", "WatchdogSec", "30"),
			Cause: fmt.Sprintf("%s has WatchdogSec=%s: systemd would end a healthy agent on a busy machine", u.Unit, u.p["WatchdogUSec"])}}
	}
	return nil
}

func (u unit) checkNetwork() (out []Problem) {
	if u.p["PrivateNetwork"] == "yes" {
		out = append(out, Problem{Cause: u.Unit + " has PrivateNetwork=yes: it cannot reach its manager", Remedy: u.setRemedy("Service", "PrivateNetwork", "no")})
	}
	list := u.p["RestrictAddressFamilies"]
	denied, isDenied := strings.CutPrefix(list, "~")
	if list == "" {
		return out
	}
	var missing []string
	for _, family := range []string{"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"} {
		if slices.Contains(strings.Fields(denied), family) == isDenied {
			missing = append(missing, family)
		}
	}
	if missing != nil {
		out = append(out, Problem{Cause: fmt.Sprintf("%s forbids %s, which the names of hosts and link-local addresses need", u.Unit, strings.Join(missing, " ")),
			Remedy: "add RestrictAddressFamilies=" + strings.Join(missing, " ") + " in [Service] of " + u.Unit + ", then run: " + u.reloadCommand()})
	}
	return out
}
