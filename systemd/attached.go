package systemd

import (
	"context"
	"fmt"
)

// Attached is a service that an agent in a unit of its own upgrades. It reads the unit
// with systemctl, as any user may.
type Attached struct {
	Name   string       // of the unit, like "app.service"
	Layout Layout       // of the install root
	Ask    func() error // creates Layout.RestartFile, which app-restart.path waits for
	// Stopped is wrapped by the error of Active if an operator stopped the unit.
	Stopped error
}

// Restart requests a restart of the unit: it creates the file that systemd waits for.
func (a Attached) Restart(context.Context) error { return a.Ask() }

// Active returns the invocation id of the running unit. The error says why it does not
// run.
func (a Attached) Active(ctx context.Context) (string, error) {
	p, err := show(ctx, a.Name, "ActiveState", "SubState", "Result", "InvocationID")
	if err != nil {
		return "", err
	}
	return a.active(p)
}

// active is Active, with the properties of the unit.
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

// Journal is LastLines of the unit.
func (a Attached) Journal(ctx context.Context) ([]string, error) {
	p, err := show(ctx, a.Name, "InvocationID")
	if err != nil {
		return nil, err
	}
	return lastLines(ctx, a.Name, p["InvocationID"])
}
