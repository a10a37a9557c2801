package systemd

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"
)

// Pace returns how often systemd has restarted the unit of this process by itself, how long
// it waits between two starts, and the time limit of this command; 0: none. This process
// must be an ExecStartPre= of the unit: elsewhere, as in the ExecCondition= of an attached
// service, Pace returns an error.
func Pace(ctx context.Context) (restarts int, wait, limit time.Duration, err error) {
	unit, err := Self()
	if err != nil {
		return 0, 0, 0, err
	}
	// RestartUSecNext: from 254 on, with RestartSteps=.
	p, err := show(ctx, unit, "NRestarts", "SubState", "RestartUSec", "RestartUSecNext", "TimeoutStartUSec")
	if err != nil {
		return 0, 0, 0, err
	}
	return pace(unit, p)
}

// HasRestartSteps reports whether the systemd of this machine has RestartSteps= (254): earlier
// ones would log an unknown key at each reload.
func HasRestartSteps(ctx context.Context) bool {
	out, err := output(ctx, "systemctl", "--version")
	return err == nil && hasRestartSteps(string(out))
}

func hasRestartSteps(version string) bool {
	var n int
	_, err := fmt.Sscanf(version, "systemd %d", &n)
	return err == nil && n >= 254
}

func pace(unit string, p map[string]string) (restarts int, wait, limit time.Duration, err error) {
	if p["SubState"] != "start-pre" {
		return 0, 0, 0, fmt.Errorf("%s is not in its ExecStartPre=, but %.40q", unit, p["SubState"])
	}
	restarts, err = strconv.Atoi(p["NRestarts"])
	if err != nil {
		return 0, 0, 0, fmt.Errorf("systemctl show %s: NRestarts=%.40q is no number", unit, p["NRestarts"])
	}
	wait, _ = duration(cmp.Or(p["RestartUSecNext"], p["RestartUSec"]))
	if limit, _ = duration(p["TimeoutStartUSec"]); p["TimeoutStartUSec"] == "infinity" {
		limit = time.Hour
	}
	return restarts, wait, limit, nil
}
