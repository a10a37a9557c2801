package systemd

import (
	"context"
	"fmt"
)

// Attached is a service that an agent beside it looks after. It asks
// systemctl, as any user may.
type Attached struct {
	Name   string       // of the unit, like "app.service"
	Layout Layout       // of the install root
	Ask    func() error // creates Layout.RestartFile, which app-restart.path waits for
	// Stopped is what the error of Active wraps when somebody stopped the unit.
	Stopped error
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
