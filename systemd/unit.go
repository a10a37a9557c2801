package systemd

import (
	"embed"
	"fmt"
	"regexp"
	"strings"
	"text/template"
)

//go:embed units/*.tmpl
var unitTexts embed.FS

var unitTemplates = template.Must(template.ParseFS(unitTexts, "units/*.tmpl"))

// Unit is the service that a root belongs to. Name, Root, Binary, User and
// WindowSecs are required.
type Unit struct {
	Name   string // of the service, without ".service"
	Root   string // the install root, an absolute path
	Binary string // in a version's directory
	User   string // that it runs as; it must own Root
	// WindowSecs is boot_health_window_secs of the configuration.
	WindowSecs   int
	RestartSecs  float64 // between two starts; default 1
	WatchdogSecs int     // without an answer from the agent; default 30
	Environment  []string
	Journal      bool // lets it read the journal: see LastLines
	// Attached is the service that the agent looks after, like "app.service", and
	// Agent the absolute path of edge-agent; both empty when the service is the
	// agent itself.
	Attached, Agent string
}

// File is a unit file, or a part of one: Name is its path below
// /etc/systemd/system.
type File struct{ Name, Text string }

// plain is what a value may consist of, so that it stands for itself in a unit
// file: no space, quote, backslash, % or $.
var plain = regexp.MustCompile(`^[0-9A-Za-z_./:=@+,-]+$`)

// Files returns the unit, or, in attached mode, the agent's unit, a part of the
// service's own, and two by which the agent has the service restarted. Values
// that would need quoting are refused.
func (u Unit) Files() ([]File, error) {
	if u.RestartSecs == 0 {
		u.RestartSecs = 1
	}
	if u.WatchdogSecs == 0 {
		u.WatchdogSecs = 30
	}
	if u.WindowSecs < 1 {
		return nil, fmt.Errorf("unit: no health window")
	}
	if !strings.HasPrefix(u.Root, "/") {
		return nil, fmt.Errorf("unit: root %q is not an absolute path", u.Root)
	}
	values := map[string]string{"name": u.Name, "root": u.Root, "binary": u.Binary, "user": u.User}
	files := [][2]string{{"service.tmpl", u.Name + ".service"}}
	if u.Attached != "" {
		values["unit"], values["agent"] = u.Attached, u.Agent
		if !strings.HasPrefix(u.Agent, "/") {
			return nil, fmt.Errorf("unit: agent %q is not an absolute path", u.Agent)
		}
		if strings.HasPrefix(u.Agent, u.Root+"/") {
			return nil, fmt.Errorf("unit: agent %s is inside the install root, where %s could change what root runs; install edge-agent elsewhere, like /usr/local/bin", u.Agent, u.User)
		}
		base := u.base()
		files = [][2]string{
			{"agent.tmpl", base + "-agent.service"},
			{"dropin.tmpl", u.Attached + ".d/50-edge-agent.conf"},
			{"restart.path.tmpl", u.restartPath()},
			{"restart.service.tmpl", base + "-restart.service"},
		}
	}
	for what, v := range values {
		if !plain.MatchString(v) {
			return nil, fmt.Errorf("unit: %s %q is not made of letters, digits and _./:=@+,- alone", what, v)
		}
	}
	for _, v := range u.Environment {
		if !plain.MatchString(v) || !strings.Contains(v, "=") {
			return nil, fmt.Errorf("unit: environment %q is not NAME=VALUE of letters, digits and _./:=@+,- alone", v)
		}
	}
	var out []File
	for _, f := range files {
		var b strings.Builder
		if err := unitTemplates.ExecuteTemplate(&b, f[0], u); err != nil {
			return nil, fmt.Errorf("unit: %w", err)
		}
		out = append(out, File{f[1], b.String()})
	}
	return out, nil
}

func (u Unit) base() string { return strings.TrimSuffix(u.Attached, ".service") }

func (u Unit) restartPath() string { return u.base() + "-restart.path" }

// Enable is what must be enabled of Files, and started.
func (u Unit) Enable() []string {
	if u.Attached == "" {
		return []string{u.Name + ".service"}
	}
	return []string{u.restartPath(), u.base() + "-agent.service"}
}
