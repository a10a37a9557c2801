package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// Options is what a program gives its agent besides the configuration. Version
// is required; the functions that are nil do nothing.
type Options struct {
	// Version is the program's own version, as it was stamped when it was
	// built: what the manager is told, and what a trial is judged by.
	Version string
	// Signers are the rows of the allowlist; nil means verify.DefaultSigners.
	Signers []verify.Signer
	// Check is the program's own health: nil when it is well. It is called every
	// second during a trial, and before every health message.
	Check func(context.Context) error
	// Drain is called once a new version is staged, before Run returns, with a
	// context that ends after drain_secs.
	Drain func(context.Context) error
	// Notify tells systemd (systemd.Notify). It must be set when the process
	// runs under a unit of Type=notify.
	Notify func(state string) error
	// CheckUnit is called at the start, every minute, and before an upgrade: an
	// error says why this process's unit could keep a version from being rolled
	// back, and no upgrade is then accepted (systemd.Service.FitSelf).
	CheckUnit func(context.Context) error
	// Journal returns the last lines of the runs before this one, which go into
	// the event of a rollback (systemd.LastLines).
	Journal func(context.Context) ([]string, error)
	// Handlers serve commands other than upgrades, by action type.
	Handlers map[string]Handler
	// Log gets one record a transition.
	Log zerolog.Logger
}

// Handler serves one command. What it returns is the ack's: an error makes it
// a failure with error_code "action_failed". Handlers run one at a time, and
// hold up the session: ctx ends after 20 s, and they must then return.
type Handler func(ctx context.Context, action wire.Action) error

// settings is a checked configuration with the options.
type settings struct {
	config.Settings
	Options
	version release.Version // of the service; zero: attached, and none is installed
	// proxyRoots are the CAs of an https proxy; nil means the system's. Tests set it.
	proxyRoots *x509.CertPool
}

// resolve checks both. What attends another unit has no version of its own, and
// gives the one that current points to; zero: none.
func resolve(c config.Config, o Options) (settings, error) {
	checked, err := c.Resolve()
	r := settings{Settings: checked, Options: o}
	errs := []error{err}
	if c.Service.Unit == "" || o.Version != "" {
		if r.version, err = release.ParseVersion(o.Version); err != nil {
			errs = append(errs, fmt.Errorf("Version: %w", err))
		}
	}
	if o.Notify == nil {
		if os.Getenv("NOTIFY_SOCKET") != "" {
			errs = append(errs, errors.New("this process runs under a unit of Type=notify, but Options.Notify is not set; set it to systemd.Notify"))
		}
		r.Notify = func(string) error { return nil }
	}
	return r, errors.Join(errs...)
}
