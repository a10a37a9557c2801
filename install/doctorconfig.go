package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/systemd"
)

// configuration checks config.toml, and reports whether the node runs with it or with
// the copy of the last valid file.
func (d *doctor) configuration() bool {
	c, err := config.Load(d.config)
	if err == nil {
		d.binary(&c)
		var checked config.Settings
		checked, err = c.Resolve()
		c = checked.Config
	}
	running, warnings, notRunning := config.Open(d.config)
	switch {
	case err != nil && notRunning != nil:
		d.c = c
		d.check("configuration", d.configFault(err))
		return false
	case err != nil:
		c = running.Config
		d.binary(&c)
	}
	d.c = c
	var faults []fault
	if err != nil && warnings.Accepted.IsZero() {
		d.copied = true
		f := d.configFault(err)
		if errors.Is(err, fs.ErrNotExist) {
			f.remedy = fmt.Sprintf("write it again, or restore the copy: cp -p %s %s; then restart the service", running.Layout.AcceptedConfig(), d.config)
		}
		f.cause += "; the service runs with a copy of the last valid file, and refuses upgrades"
		faults = append(faults, f)
	} else {
		for _, w := range warnings.List {
			faults = append(faults, fault{w.Cause, w.Remedy})
		}
	}
	d.check("configuration", faults...)
	if !c.Upgrade.Enabled && len(c.Manager.URLs) > 0 {
		d.check("upgrades", fault{"upgrades are off, so the manager cannot schedule one", "set enabled = true in [upgrade] of " + d.config + ", and restart the service"})
	}
	return true
}

// configFault returns the remedy of an error of config.toml.
func (d *doctor) configFault(err error) fault {
	remedy := "correct it, and check it with: edge-agent config check " + d.config
	switch {
	case errors.Is(err, fs.ErrNotExist):
		remedy = "give the path of the node's config.toml, or install the service again: edge-agent install --help"
	case errors.Is(err, fs.ErrPermission):
		who := systemd.UserName(uint32(os.Geteuid()))
		remedy = fmt.Sprintf("only root can change that: chown %s: %s && chmod 600 %s (or run doctor as root, if %s is not the service's user)", who, d.config, d.config, who)
		if why, open := blocked(filepath.Dir(d.config), uint32(os.Geteuid())); why != "" {
			return fault{fmt.Sprintf("%s cannot read %s: it may not enter %s", who, d.config, why), open}
		}
	case strings.Contains(err.Error(), "chmod 600"):
		remedy = "make it unreadable for others: chmod 600 " + d.config
	}
	return fault{err.Error(), remedy}
}

// usual is the name of the program in a release.
const usual = "edge-agent"

// binary sets service.binary where the configuration does not. The default is the name
// of the running program, and this process may be a copy with another name. c may have
// the defaults already.
func (d *doctor) binary(c *config.Config) {
	set := c.Service.Binary != ""
	if c.Service.Unit != "" || set && c.Service.Binary != ownName() {
		return
	}
	checked, _ := c.Resolve() // fills in the defaults, also with an error
	in := func(name string) bool {
		_, err := os.Stat(filepath.Join(checked.Layout.Current(), name))
		return err == nil
	}
	if in(checked.Service.Binary) || set && !in(usual) {
		return
	}
	c.Service.Binary = usual
}

// ownName returns the file name of this program.
func ownName() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	return filepath.Base(exe)
}
