package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// Options is what a program gives its agent besides the configuration. New needs Version,
// and Attend needs Notify. A function that is nil does nothing.
//
// No function of Options can end or hang the service. Each call has the limit that its field
// states, and its context ends then, or when Run is to end. A call that returns 2 s after that
// at the latest keeps its result. Any other call is abandoned: the log reports it, and the
// call counts as failed. While an abandoned call still runs, the function is not called again,
// and each further call counts as failed. Run does not wait for an abandoned call. A panic
// counts as a failed call, and the log has its stack; a panic on another goroutine that the
// function started ends the process, as in every Go program. An error that a call returns is
// read once, within 2 s and by the same rules; the agent keeps the first 4 KiB of its text, the
// code of a release.Error, and whether it is a timeout, the end of a context, or a full disk.
//
// Calls of one function never overlap. Calls of different functions may run at the same time.
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
	// second during a trial, before every health message, and before a swap; without a
	// session, in a process that Run serves, as often as a health message is due. Limit: 10 s.
	// On trial a failed call is a failed check; otherwise the node reports that it is
	// degraded, Agent.Status says why, and a swap is refused.
	Check func(context.Context) error
	// Serve is the service's own work. Run calls it when RolledBack, if that is due, has
	// returned. It returns when its context ends, at the latest after drain_secs; then it is
	// abandoned. It calls Agent.Ready when it serves: READY=1, and on trial the check, wait for
	// that. If it returns before, with whatever error, or panics, then a start on trial has
	// failed; otherwise the node reports that it is degraded, stays connected, so that it can be
	// repaired by a release, and Serve is called again, first after 1 s and at last every minute.
	Serve func(ctx context.Context, a *Agent) error
	// BeforeTrial is called before the swap to a new version, with data of the old one to save.
	// An error refuses the upgrade. Limit: 10 minutes. With manual_only it is called when the
	// version is staged; edge-agent apply calls nothing. Nor is it called where a rollback would
	// restore data that were saved before: while RolledBack is due, or this version is on trial
	// and they were saved before it. It is called again if this version is kept, or has restored
	// its data, before the swap.
	BeforeTrial func(context.Context, Change) error
	// Kept is called once this version is kept, after its guard: from then on nothing rolls it
	// back but an operator, and its data may change so that the old version cannot read it.
	// Change.From is the oldest version whose data it may find: normally the one before this one,
	// and an older one if the call of a version between them did not succeed, or it had no Kept.
	// If another upgrade begins before a call has succeeded, and is rolled back, the call is due
	// again. It is also due again if the node returns to this version after an older one, to
	// which an operator rolled back, began to restore its data (RolledBack); Change.From then
	// says whose. It waits for RolledBack of this version, if that is due.
	// Limit: 1 hour. A call that fails is repeated after 5 s, and later ones at last every
	// 5 minutes.
	Kept func(context.Context, Change) error
	// RolledBack is called in the next start of the version to which the node returned, before
	// Serve, if that version had saved its data: it restores them. Change.To is the version that
	// was rolled back, by the watchdog or by an operator. Limit: 10 minutes. A call that fails is
	// repeated as that of Kept, and Serve waits.
	RolledBack func(context.Context, Change) error
	// Drain is called once a new version is staged, before Run returns. Limit: drain_secs.
	// After a failed call the service restarts all the same.
	Drain func(context.Context) error
	// Notify sends a state to systemd (systemd.Notify). It must be set when the process
	// runs under a unit of Type=notify. Limit: 1 s. READY=1 and the status text are sent again
	// after a failed call. On trial the check does not pass before READY=1 was sent. It must not
	// call SetStatusText, which waits for the call that runs.
	Notify func(state string) error
	// CheckUnit returns why systemd could not roll a bad version back in this
	// process's unit, or nil (systemd.Service.FitSelf). It is called at the start, every
	// minute, and before an upgrade. While it returns an error, upgrades are refused. An
	// error with a method Timeout that returns true is no answer: the one before stays.
	// Limit: 30 s, and 5 s at the start, which waits for it.
	CheckUnit func(context.Context) error
	// CheckVersion returns why the unit could not start the version in dir, which is staged,
	// or nil (systemd.Service.FitVersionSelf). An error refuses the upgrade. Limit: 1 minute.
	CheckVersion func(ctx context.Context, dir string) error
	// CheckRestart returns nil if systemd restarts the service at once when the agent writes the
	// file restart in the install root (systemd.Service.FitRestart). It is called when a new
	// version is staged, before Drain. After Drain, Run then writes the file, goes on for up to
	// 1 s, and waits for the end of its context. If CheckRestart is nil or returns an error, Run
	// returns right after Drain, and systemd starts the service after RestartSec=. Limit: 5 s.
	CheckRestart func(context.Context) error
	// Journal returns the last lines of the runs before this one, for the event of a
	// rollback (systemd.LastLines). Limit: 20 s. After a failed call the event has no lines.
	Journal func(context.Context) ([]string, error)
	// Verified, if set, is called once a release of a command is verified: the program can give
	// back the memory that only the verification needed. Neither the download nor Run waits for
	// it. It may be called again for the same release. Limit: 2 s.
	Verified func()
	// Handlers carry out the author's commands, by the name of the action:
	// Handlers{"reboot": reboot}. A name is a
	// lower-case letter, then at most 63 lower-case letters, digits and underscores.
	// get_config, and names that begin with upgrade_, are reserved for the agent. New refuses
	// other names, a nil handler, and more than 64. The node announces the names to its
	// manager. Limit: HandlerTimeout. See Handler.
	Handlers CommandHandlers
	// HandlerTimeout is the limit of a Handler: 0, which means 5 minutes, to 24 hours.
	HandlerTimeout time.Duration
	// Log receives one record a transition; nil: nobody reads them. Its handler is called by one
	// goroutine at a time. Limit: 2 s for a record. What it does not take is lost, and a later
	// record has the number.
	Log *slog.Logger
}

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

// Check returns every error for which New would refuse c and o. It changes neither, and starts
// nothing. config.Errors lists the keys.
func Check(c config.Config, o Options) error {
	_, err := resolve(c, o)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

// resolve checks both, and shares no memory with them. An agent that attends another unit passes the version that
// current points to; "" if there is none.
func resolve(c config.Config, o Options) (settings, error) {
	checked, err := c.Resolve()
	o.Signers = slices.Clone(o.Signers)
	r := settings{Settings: checked, Options: o}
	errs := []error{err}
	if c.Service.Unit == "" || o.Version != "" {
		if r.version, err = release.ParseVersion(o.Version); err != nil {
			errs = append(errs, config.NewError("Options.Version", ": the program's version: %w", err))
		}
	}
	if o.Notify == nil {
		if os.Getenv("NOTIFY_SOCKET") != "" {
			errs = append(errs, config.NewError("Options.Notify", " is not set, but this process runs under a unit of Type=notify; set it to systemd.Notify"))
		}
		r.Notify = func(string) error { return nil }
	}
	if o.HandlerTimeout < 0 || o.HandlerTimeout > maxHandlerTimeout {
		errs = append(errs, config.NewError("Options.HandlerTimeout", " is %v; it must be 0 (for %v) to %v", o.HandlerTimeout, defaultHandlerTimeout, maxHandlerTimeout))
	}
	if v := reflect.ValueOf(o.Handlers); v.Kind() == reflect.Pointer && v.IsNil() {
		errs = append(errs, config.NewError("Options.Handlers", " is a nil %T; leave it out, or set it to a Handlers", o.Handlers))
	} else if o.Handlers != nil {
		r.Handlers, err = o.Handlers.checked()
		errs = append(errs, err)
	}
	r.Window, r.Hold = pace(r.Window), pace(r.Hold)
	return r, errors.Join(errs...)
}
