package systemd

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
	"text/template"
)

//go:embed unit.service.tmpl
var unitText string

var unitTemplate = template.Must(template.New("unit").Parse(unitText))

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
}

// plain is what a value may consist of, so that it stands for itself in a unit
// file: no space, quote, backslash, % or $.
var plain = regexp.MustCompile(`^[0-9A-Za-z_./:=@+,-]+$`)

// Text returns the unit file. Values that would need quoting are refused.
func (u Unit) Text() (string, error) {
	if u.RestartSecs == 0 {
		u.RestartSecs = 1
	}
	if u.WatchdogSecs == 0 {
		u.WatchdogSecs = 30
	}
	if u.WindowSecs < 1 {
		return "", fmt.Errorf("unit: no health window")
	}
	if !strings.HasPrefix(u.Root, "/") {
		return "", fmt.Errorf("unit: root %q is not an absolute path", u.Root)
	}
	for what, v := range map[string]string{"name": u.Name, "root": u.Root, "binary": u.Binary, "user": u.User} {
		if !plain.MatchString(v) {
			return "", fmt.Errorf("unit: %s %q is not made of letters, digits and _./:=@+,- alone", what, v)
		}
	}
	for _, v := range u.Environment {
		if !plain.MatchString(v) || !strings.Contains(v, "=") {
			return "", fmt.Errorf("unit: environment %q is not NAME=VALUE of letters, digits and _./:=@+,- alone", v)
		}
	}
	var b strings.Builder
	if err := unitTemplate.Execute(&b, u); err != nil {
		return "", fmt.Errorf("unit: %w", err)
	}
	return b.String(), nil
}
