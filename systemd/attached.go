package systemd

import (
	"context"
	"fmt"
	"strings"
)

// Attached is a service that an agent beside it looks after. It asks
// systemctl, as any user may.
type Attached struct {
	Name string       // of the unit, like "app.service"
	Root string       // the install root
	Ask  func() error // makes the file that app-restart.path waits for
	// Stopped is what the error of Active wraps when somebody stopped the unit.
	Stopped error
}

// Fit returns an error if the unit is not as Unit.Files makes it: then a
// version of it could not be counted, judged, restarted or taken back.
func (a Attached) Fit(ctx context.Context) error {
	p, err := show(ctx, a.Name, "LoadState", "StartLimitIntervalUSec", "StartLimitBurst", "Restart", "ExecCondition", "ExecStart")
	if err != nil {
		return err
	}
	if err := a.fit(p); err != nil {
		return err
	}
	path := Unit{Attached: a.Name}.restartPath()
	if p, err = show(ctx, path, "ActiveState"); err != nil {
		return err
	}
	if p["ActiveState"] != "active" {
		return fmt.Errorf("%s is %s, so that the service could not be restarted; run: systemctl enable --now %[1]s", path, p["ActiveState"])
	}
	return nil
}

func (a Attached) fit(p map[string]string) error { return fit(a.Name, a.Root, "ExecCondition", p) }

// Fit is Attached.Fit for the unit of a service that is the agent itself.
func Fit(ctx context.Context, unit, root string) error {
	p, err := show(ctx, unit, "LoadState", "StartLimitIntervalUSec", "StartLimitBurst", "Restart", "ExecStartPre", "ExecStart")
	if err != nil {
		return err
	}
	return fit(unit, root, "ExecStartPre", p)
}

// fit looks for the watchdog in the setting pre.
func fit(unit, root, pre string, p map[string]string) error {
	const how = "write its files again: edge-agent unit --help"
	switch {
	case p["LoadState"] != "loaded":
		return fmt.Errorf("%s: systemd says %q of it", unit, p["LoadState"])
	case !strings.Contains(p["ExecStart"], "path="+root+"/current/"):
		return fmt.Errorf("%s does not start a program below %s/current, so that a swap would change nothing; set its ExecStart=", unit, root)
	case !strings.Contains(p[pre], " watchdog --root "+root+" ;"):
		return fmt.Errorf("%s does not run the watchdog in %s=, so that its starts would not be counted; %s", unit, pre, how)
	case p["Restart"] != "always":
		return fmt.Errorf("%s has Restart=%s; it must be always; %s", unit, p["Restart"], how)
	}
	return checkLimit(unit, p)
}

// Restart makes the file that systemd waits for.
func (a Attached) Restart(context.Context) error { return a.Ask() }

// Active returns the invocation id of the unit, if it is up.
func (a Attached) Active(ctx context.Context) (string, error) {
	p, err := show(ctx, a.Name, "ActiveState", "SubState", "Result", "InvocationID")
	if err != nil {
		return "", err
	}
	return a.active(p)
}

func (a Attached) active(p map[string]string) (string, error) {
	switch state := p["ActiveState"]; {
	case state == "active" && p["InvocationID"] != "":
		return p["InvocationID"], nil
	case state == "inactive" && p["Result"] == "success":
		return "", fmt.Errorf("%s: %w", a.Name, a.Stopped)
	default:
		return "", fmt.Errorf("%s is %s (%s, result %s)", a.Name, state, p["SubState"], p["Result"])
	}
}

// Journal returns what LastLines does, of the unit.
func (a Attached) Journal(ctx context.Context) ([]string, error) {
	p, err := show(ctx, a.Name, "InvocationID")
	if err != nil {
		return nil, err
	}
	return lastLines(ctx, a.Name, p["InvocationID"])
}
