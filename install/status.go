package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// UnitOf returns the name of the service of a root, from its config.toml, without
// ".service": that of service.unit in attached mode.
func UnitOf(root string) (string, error) {
	c, err := configOf(root)
	if err != nil {
		return "", err
	}
	return cmp.Or(strings.TrimSuffix(c.Service.Unit, ".service"), c.Service.Name), nil
}

func configOf(root string) (config.Config, error) {
	l, err := state.At(root)
	if err != nil {
		return config.Config{}, err
	}
	c, err := config.Read(l.ConfigFile())
	return c.Config, err
}

// ServiceStatus is what systemd says of a service. State is "running",
// "starting", "stopped", "failed", "crash loop" or "unknown".
type ServiceStatus struct {
	Unit     string    `json:"unit,omitzero"`
	State    string    `json:"state"`
	Since    time.Time `json:"since,omitzero"`
	Restarts int       `json:"restarts"`         // by systemd
	Reason   string    `json:"reason,omitzero"`  // how the last run ended, or why the state is not known
	Enabled  string    `json:"enabled,omitzero"` // as systemd calls it
	Remedy   string    `json:"remedy,omitzero"`  // what starts a stopped service
	// NoUpgrades is why the running agent takes no upgrade, as it reports it.
	NoUpgrades string `json:"no_upgrades,omitzero"`
}

// ConnectionStatus is the link to the manager: "connected", "not connected" or
// "unknown".
type ConnectionStatus struct {
	State   string    `json:"state"`
	URL     string    `json:"url,omitzero"`
	Since   time.Time `json:"since,omitzero"`
	Problem string    `json:"problem,omitzero"` // the last error, or why the state is not known
}

// LookAt returns the state of the service of a root, and of its link to the
// manager. changed is when the upgrade status was reached, trial whether a
// version is on trial. It changes nothing.
func LookAt(ctx context.Context, root string, changed time.Time, trial bool) (ServiceStatus, ConnectionStatus) {
	unknown := func(unit string, why error) (ServiceStatus, ConnectionStatus) {
		return ServiceStatus{Unit: unit, State: "unknown", Reason: why.Error()}, ConnectionStatus{State: "unknown", Problem: why.Error()}
	}
	c, err := configOf(root)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("there is no config.toml in %s, which names the service", root)
		}
		return unknown("", err)
	}
	unit := cmp.Or(c.Service.Unit, c.Service.Name+".service")
	s, err := systemd.Look(ctx, unit)
	if err != nil {
		return unknown(unit, err)
	}
	if trial {
		changed = time.Now()
	}
	agentState := s
	if name := AgentUnit(c); name != unit {
		if agentState, err = systemd.Look(ctx, name); err != nil {
			return unknown(unit, err)
		}
	}
	out := serviceStatus(settle(ctx, s, changed), changed)
	if agentState.Active == "active" || agentState.Active == "activating" {
		out.NoUpgrades = agent.ParseUnable(agentState.Text)
	}
	return out, connectionStatus(agentState)
}

func serviceStatus(s systemd.State, changed time.Time) ServiceStatus {
	out := ServiceStatus{Unit: s.Unit, Since: s.Since, Restarts: s.Restarts, Enabled: s.Enabled}
	switch {
	case s.Load != "loaded":
		out.State, out.Reason = "unknown", fmt.Sprintf("systemd has no usable unit %s (%s)", s.Unit, s.Load)
		if s.Load == "masked" {
			out.State, out.Reason, out.Remedy = "stopped", "its unit is masked", s.Start()
		}
	case s.CrashLoop(time.Now(), changed):
		out.State, out.Reason = "crash loop", s.Looping()
	case s.Active == "active":
		out.State = "running"
	case s.Active == "failed":
		out.State, out.Reason = "failed", s.Ended()
	case s.Active == "activating" || s.Active == "reloading":
		out.State = "starting"
	default:
		out.State, out.Reason, out.Remedy = "stopped", s.Ended(), s.Start()
	}
	return out
}

func connectionStatus(s systemd.State) ConnectionStatus {
	if s.Active != "active" && s.Active != "activating" {
		return ConnectionStatus{State: "not connected", Since: s.Since, Problem: fmt.Sprintf("%s is %s", s.Unit, cmp.Or(s.Active, "not there"))}
	}
	c, ok := agent.ParseConnection(s.Text)
	switch {
	case !ok:
		return ConnectionStatus{State: "unknown", Problem: "the agent does not report it: it starts, or is of an earlier version"}
	case c.Connected:
		return ConnectionStatus{State: "connected", URL: c.URL, Since: c.Since}
	}
	return ConnectionStatus{State: "not connected", URL: c.URL, Since: c.Since, Problem: c.Problem}
}
