package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// Options is what a program gives its agent besides the configuration. New needs Version,
// and Attend needs Notify. A function that is nil does nothing.
type Options struct {
	// Version is the program's own version, as it was stamped when it was built. The
	// node reports it to the manager, and a trial expects it.
	Version string
	// Warnings are those of config.Open. The agent logs them, reports in each health
	// message those that it cannot repair, withholds upgrades where they say so, and keeps
	// a copy of an accepted file.
	Warnings config.Warnings
	// Signers are the rows of the allowlist; nil means verify.DefaultSigners.
	Signers []verify.Signer
	// Check is the program's own health: nil when it is well. It is called every
	// second during a trial, before every health message, and before a swap. Calls may
	// overlap.
	Check func(context.Context) error
	// Drain is called once a new version is staged, before Run returns, with a
	// context that ends after drain_secs.
	Drain func(context.Context) error
	// Notify sends a state to systemd (systemd.Notify). It must be set when the process
	// runs under a unit of Type=notify.
	Notify func(state string) error
	// CheckUnit returns why systemd could not roll a bad version back in this
	// process's unit, or nil (systemd.Service.FitSelf). It is called at the start, every
	// minute, and before an upgrade. While it returns an error, upgrades are refused. An
	// error with a method Timeout that returns true is no answer: the one before stays.
	CheckUnit func(context.Context) error
	// CheckVersion returns why the unit could not start the version in dir, which is staged,
	// or nil (systemd.Service.FitVersionSelf). An error refuses the upgrade.
	CheckVersion func(ctx context.Context, dir string) error
	// Journal returns the last lines of the runs before this one, for the event of a
	// rollback (systemd.LastLines).
	Journal func(context.Context) ([]string, error)
	// Verified, if set, is called once a release of a command is verified, when its download
	// begins: the program can give back the memory that only the verification needed. It must
	// return quickly, and may be called again for the same release.
	Verified func()
	// Handlers serve commands other than upgrades, by action type.
	Handlers map[string]Handler
	// Log receives one record a transition.
	Log zerolog.Logger
}

// Handler serves one command. Its error becomes a failed ack with the error_code
// "action_failed". Handlers run one at a time and block the session; ctx ends after
// 20 s, and they must then return.
type Handler func(ctx context.Context, action wire.Action) error

// settings is a checked configuration with the options.
type settings struct {
	config.Settings
	Options
	version release.Version // of the service; zero: attached, and none is installed
	// proxyRoots are the CAs of an https proxy; nil means the system's. Tests set it.
	proxyRoots *x509.CertPool
	// connect opens a connection; nil means connectTCP. Tests set it.
	connect func(ctx context.Context, network, addr string) (net.Conn, error)
}

// resolve checks both. An agent that attends another unit passes the version that
// current points to; "" if there is none.
func resolve(c config.Config, o Options) (settings, error) {
	checked, err := c.Resolve()
	r := settings{Settings: checked, Options: o}
	errs := []error{err}
	if c.Service.Unit == "" || o.Version != "" {
		if r.version, err = release.ParseVersion(o.Version); err != nil {
			errs = append(errs, fmt.Errorf("the program's version: %w", err))
		}
	}
	if o.Notify == nil {
		if os.Getenv("NOTIFY_SOCKET") != "" {
			errs = append(errs, errors.New("this process runs under a unit of Type=notify, but Options.Notify is not set; set it to systemd.Notify"))
		}
		r.Notify = func(string) error { return nil }
	}
	r.Window, r.Hold = pace(r.Window), pace(r.Hold)
	return r, errors.Join(errs...)
}
