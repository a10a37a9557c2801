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
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// UnitOf returns the name of the service of a root, without ".service", from its
// config.toml. In attached mode that is service.unit.
func UnitOf(root string) (string, error) {
	c, err := configOf(root)
	if err != nil {
		return "", err
	}
	return cmp.Or(strings.TrimSuffix(c.Service.Unit, ".service"), c.Service.Name), nil
}

// configOf returns the configuration with which the node of a root runs.
func configOf(root string) (config.Config, error) {
	l, err := state.At(root)
	if err != nil {
		return config.Config{}, err
	}
	c, _, err := config.Open(l.ConfigFile())
	return c.Config, err
}

// WithGroup returns l, with KeepGroup if its node is attached to a service.
func WithGroup(l state.Layout) state.Layout {
	if c, err := configOf(l.Root()); err == nil && c.Service.Unit != "" {
		return l.KeepGroup()
	}
	return l
}

// ConfigNotes returns what is wrong with the config.toml of a root although its node
// runs. It returns nothing about a file with which the node does not run.
func ConfigNotes(root string) []string {
	l, err := state.At(root)
	if err != nil {
		return nil
	}
	_, w, err := config.Open(l.ConfigFile())
	if err != nil {
		return nil
	}
	var notes []string
	for _, problem := range w.List {
		notes = append(notes, problem.String())
	}
	return notes
}

// ServiceStatus is the state of a service, as systemd reports it. State is "running",
// "starting", "stopped", "failed", "crash loop" or "unknown".
type ServiceStatus struct {
	Unit     string    `json:"unit,omitzero"`
	State    string    `json:"state"`
	Since    time.Time `json:"since,omitzero"`
	Restarts int       `json:"restarts"`         // how often systemd restarted it
	Reason   string    `json:"reason,omitzero"`  // how the last run ended, or why the state is unknown
	Enabled  string    `json:"enabled,omitzero"` // UnitFileState of systemd
	Remedy   string    `json:"remedy,omitzero"`  // command that starts a stopped service
	// NoUpgrades is the reason for which the running agent refuses upgrades.
	NoUpgrades string `json:"no_upgrades,omitzero"`
}

// ConnectionStatus is the state of the link to the manager. State is "connected", "not
// connected", agent.NoManager or "unknown".
type ConnectionStatus struct {
	State   string    `json:"state"`
	URL     string    `json:"url,omitzero"`
	Since   time.Time `json:"since,omitzero"`
	Problem string    `json:"problem,omitzero"` // the last error, or why the state is unknown
}

// QueryStatus returns the state of the service of a root, and of its link to the manager.
// changed is when the node reached its upgrade status, and trial whether a version is
// on trial. It changes nothing, and may wait 3 s for a service that was just restarted.
func QueryStatus(ctx context.Context, root string, changed time.Time, trial bool) (ServiceStatus, ConnectionStatus) {
	unknown := func(unit string, why error) (ServiceStatus, ConnectionStatus) {
		return ServiceStatus{Unit: unit, State: "unknown", Reason: why.Error()}, ConnectionStatus{State: "unknown", Problem: why.Error()}
	}
	c, err := configOf(root)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("there is no config.toml in %s, so the name of the service is unknown", root)
		}
		return unknown("", err)
	}
	unit := cmp.Or(c.Service.Unit, c.Service.Name+".service")
	s, err := systemd.QueryState(ctx, unit)
	if err != nil {
		service, connection := unknown(unit, err)
		if len(c.Manager.URLs) == 0 {
			connection = ConnectionStatus{State: agent.NoManager}
		}
		return service, connection
	}
	if trial {
		changed = time.Now()
	}
	agentState := s
	if name := AgentUnit(c); name != unit {
		if agentState, err = systemd.QueryState(ctx, name); err != nil {
			return unknown(unit, err)
		}
	}
	out := serviceStatus(recheck(ctx, s, changed), changed)
	if agentState.Active == "active" || agentState.Active == "activating" {
		out.NoUpgrades = agent.ParseUnable(agentState.Text)
	}
	return out, connectionStatus(agentState, len(c.Manager.URLs) == 0)
}

func serviceStatus(s systemd.State, changed time.Time) ServiceStatus {
	out := ServiceStatus{Unit: s.Unit, Since: s.Since, Restarts: s.Restarts, Enabled: s.Enabled}
	switch {
	case s.Load != "loaded":
		out.State, out.Reason = "unknown", fmt.Sprintf("systemd has no usable unit %s (%s)", s.Unit, s.Load)
		if s.Load == "masked" {
			out.State, out.Reason, out.Remedy = "stopped", "its unit is masked", s.StartCommand()
		}
	case s.CrashLoop(time.Now(), changed):
		out.State, out.Reason = "crash loop", s.LoopReason()
	case s.Active == "active":
		out.State = "running"
	case s.Active == "failed":
		out.State, out.Reason = "failed", s.EndReason()
	case s.Active == "activating" || s.Active == "reloading":
		out.State = "starting"
	default:
		out.State, out.Reason, out.Remedy = "stopped", s.EndReason(), s.StartCommand()
	}
	return out
}

// connectionStatus returns what the agent reports. none means that the configuration has no
// manager; an agent that still has one reports it.
func connectionStatus(s systemd.State, none bool) ConnectionStatus {
	c, ok := agent.ParseConnection(s.Text)
	if !ok && (none || strings.HasSuffix(s.Text, agent.NoManager)) {
		return ConnectionStatus{State: agent.NoManager}
	}
	if s.Active != "active" && s.Active != "activating" {
		return ConnectionStatus{State: "not connected", Since: s.Since, Problem: fmt.Sprintf("%s is %s", s.Unit, cmp.Or(s.Active, "missing"))}
	}
	switch {
	case !ok:
		return ConnectionStatus{State: "unknown", Problem: "the agent does not report it: it is starting, or is an earlier version"}
	case c.Connected:
		return ConnectionStatus{State: "connected", URL: c.URL, Since: c.Since}
	}
	return ConnectionStatus{State: "not connected", URL: c.URL, Since: c.Since, Problem: c.Problem}
}
