package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/spf13/cobra"
)

const (
	maxUnit  = 64 << 10
	unitDir  = "/etc/systemd/system"
	rootsDir = "/opt/bilbycast"
	maxToken = 4 << 10
)

// installation is a service on this device.
type installation struct {
	name, root, user    string
	deviceType, manager string
	tokenFile, caFile   string
	fingerprint         string
	wait                time.Duration
	restartSecs         float64
	environment         []string
	out                 io.Writer
	progress            func(phase string, done, total int64)
	purge               bool
}

func newInstallCmd() *cobra.Command {
	var i installation
	cmd := &cobra.Command{
		Use:   "install --device-type TYPE --manager URL --token-file FILE DIR|FILE.tar|URL|VERSION",
		Short: "Install a release on a bare device, and wait until its manager knows it",
		Long: `Install verifies a release, before a byte of it runs, lays out its root, user,
unit and config.toml, enables and starts it, and waits until it has registered
with its manager. Run it as root. It is done once: later versions come from the
manager.

It can be run again, after it was interrupted or to repair the unit: a version
that is installed stays, and so does config.toml.`,
		Example: `  edge-agent install 1.5.0 --device-type edge --manager wss://manager.example:8443 --token-file token
  edge-agent install /media/stick/edge-1.5.0.tar --device-type edge --manager wss://10.0.0.2:8443 --token-file token --cert-fingerprint 3f...`,
		Args: cli.ExactArgs(1, "device-type"),
		RunE: func(cmd *cobra.Command, args []string) error {
			i.out, i.progress = cmd.OutOrStdout(), progress(cmd.ErrOrStderr())
			if err := i.defaults(); err != nil {
				return err
			}
			if err := i.install(cmd.Context(), args[0]); err != nil {
				return fmt.Errorf("install: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	i.flags(cmd)
	f.StringVar(&i.manager, "manager", "", "wss:// URL of the manager (needed where there is no config.toml yet)")
	f.StringVar(&i.tokenFile, "token-file", "", "file with the registration token; - is standard input (needed where there is no config.toml yet)")
	f.StringVar(&i.fingerprint, "cert-fingerprint", "", "SHA-256 of the manager's certificate, in hex, if it is self-signed")
	f.StringVar(&i.caFile, "ca-file", "", "PEM that the manager's certificate is checked by, if it is of a private CA")
	f.DurationVar(&i.wait, "wait", 2*time.Minute, "for the first registration; 0: do not wait")
	f.Float64Var(&i.restartSecs, "restart-secs", 1, "between two starts of the service")
	f.StringArrayVar(&i.environment, "environment", nil, "NAME=VALUE for the agent; may be repeated")
	return cmd
}

func (i *installation) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&i.deviceType, "device-type", "", "as the release's manifest has it (required)")
	f.StringVar(&i.name, "name", "", "of the service (default: the device type)")
	f.StringVar(&i.root, "root", "", "install root (default: "+rootsDir+"/NAME)")
	f.StringVar(&i.user, "user", "", "that the service runs as, and that owns the root (default: NAME)")
}

func (i *installation) defaults() error {
	if i.name == "" {
		i.name = i.deviceType
	}
	if i.root == "" {
		i.root = filepath.Join(rootsDir, i.name)
	}
	if i.user == "" {
		i.user = i.name
	}
	if _, err := state.At(i.root); err != nil {
		return cli.Usage(fmt.Errorf("--root: %w", err))
	}
	path := i.unitPath()
	if text, err := fsutil.ReadFile(path, maxUnit); !errors.Is(err, fs.ErrNotExist) && !i.wrote(text) {
		return errors.Join(fmt.Errorf("%s is there, and was not written by edge-agent for %s: choose another --name, or move it away", path, i.root), err)
	}
	// What the unit refuses is refused before anything is done.
	if _, err := i.unit("edge-agent", 120).Files(); err != nil {
		return cli.Usage(err)
	}
	if i.user == "root" {
		return cli.Usage(errors.New("--user root: the service runs without root"))
	}
	if os.Geteuid() != 0 {
		return errors.New("this needs root: it makes a user and a unit (sudo edge-agent ...)")
	}
	return nil
}

func (i *installation) unitPath() string { return filepath.Join(unitDir, i.name+".service") }

// wrote reports whether a unit is one of ours, for this root.
func (i *installation) wrote(unit []byte) bool {
	return bytes.Contains(unit, []byte("written by edge-agent")) && bytes.Contains(unit, []byte(i.root+"/"))
}

func (i *installation) unit(binary string, window int) systemd.Unit {
	return systemd.Unit{Name: i.name, Root: i.root, Binary: binary, User: i.user, WindowSecs: window, Journal: true, RestartSecs: i.restartSecs, Environment: i.environment}
}

func (i *installation) say(format string, args ...any) { fmt.Fprintf(i.out, format+"\n", args...) }

func (i *installation) install(ctx context.Context, what string) error {
	l, err := state.At(i.root)
	if err != nil {
		return err
	}
	_, err = os.Lstat(l.Current())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := i.layOut(ctx, l, what); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		i.say("%s has a version, which stays; config.toml stays, too", i.root)
	}
	if st, err := os.Lstat(i.root); err != nil {
		return err
	} else if ownedByRoot(st) { // also after an interruption
		owner, err := i.makeUser(ctx)
		if err != nil {
			return err
		}
		if err := fsutil.Give(i.root, owner[0], owner[1]); err != nil {
			return err
		}
	}
	c, err := agent.Load(l.ConfigFile())
	if err != nil {
		return err
	}
	if c, err = agent.Check(c); err != nil {
		return fmt.Errorf("%s: %w", l.ConfigFile(), err)
	}
	if c.Service.Unit != "" {
		return fmt.Errorf("%s is attached to %s; see docs/attached.md", l.ConfigFile(), c.Service.Unit)
	}
	_, err = os.Lstat(l.CredentialsFile())
	registered := err == nil
	files, err := i.unit(c.Service.Binary, c.Upgrade.BootHealthWindowSecs).Files()
	if err != nil {
		return err
	}
	var disk fsutil.Disk
	for _, f := range files {
		path := filepath.Join(unitDir, f.Name)
		old, err := fsutil.ReadFile(path, maxUnit)
		if err == nil && string(old) == f.Text {
			continue
		}
		if err := disk.WriteFile(path, []byte(f.Text), 0o644); err != nil {
			return err
		}
		i.say("wrote %s", path)
	}
	for _, args := range [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "enable", "--quiet", "--now", i.name + ".service"}} {
		if err := command(ctx, args...); err != nil {
			return err
		}
	}
	if registered {
		i.say("the node is registered; %s.service runs", i.name)
		return nil
	}
	return i.await(ctx, l)
}

// layOut makes the root, config.toml and the first version. The root belongs to
// root until all of it is there: nobody else can put a link into it.
func (i *installation) layOut(ctx context.Context, l state.Layout, what string) (err error) {
	e, err := agent.Examine(ctx, nil, what, nil)
	if err == nil && !e.Release.OK() {
		err = e.Refused
	}
	if err != nil {
		return err
	}
	m, s := e.Release.Manifest(), e.Release.Signature()
	i.say("%s is genuine: signed by %s, of commit %s, at %s", m.Version, s.Workflow, s.Commit, s.Time.Format(time.RFC3339))
	if m.DeviceType != i.deviceType {
		return fmt.Errorf("%s is for the device type %q, not %q", what, m.DeviceType, i.deviceType)
	}
	if st, err := os.Stat(i.root); err == nil && !st.IsDir() {
		return fmt.Errorf("%s is not a directory", i.root)
	} else if err == nil && !ownedByRoot(st) {
		return fmt.Errorf("%s belongs to another user, and has no version: is it a damaged install? see edge-agent status --root %s", i.root, i.root)
	}
	if _, missing := os.Lstat(i.root); errors.Is(missing, fs.ErrNotExist) {
		// What is refused leaves nothing. A root that was there keeps what it has, to
		// go on with.
		defer func() {
			if err != nil {
				err = errors.Join(err, l.Disk().Discard(i.root))
			}
		}()
	}
	for _, dir := range []string{filepath.Dir(i.root), i.root} {
		if err := l.Disk().Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(l.ConfigFile()); errors.Is(err, fs.ErrNotExist) {
		if err := i.writeConfig(l); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	c, err := agent.Load(l.ConfigFile())
	if err != nil {
		return err
	}
	if c.Log, err = cli.NewLogger(io.Discard, "warn"); err != nil {
		return err
	}
	var v release.Version
	if v, err = agent.InstallFirst(ctx, c, what, i.progress); err != nil {
		return err
	}
	i.say("%s is in %s", v, i.root)
	return nil
}

// makeUser returns the ids of the user, which it makes if there is none.
func (i *installation) makeUser(ctx context.Context) (ids [2]int, err error) {
	u, err := user.Lookup(i.user)
	if errors.As(err, new(user.UnknownUserError)) {
		if err := command(ctx, "useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", i.user); err != nil {
			return ids, fmt.Errorf("%w (make the user %s by hand, and run this again)", err, i.user)
		}
		i.say("made the user %s", i.user)
		u, err = user.Lookup(i.user)
	}
	if err != nil {
		return ids, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if uid == 0 {
		return ids, fmt.Errorf("the user %s is root by another name", i.user)
	}
	return [2]int{uid, gid}, errors.Join(err1, err2)
}

func (i *installation) writeConfig(l state.Layout) error {
	if i.manager == "" || i.tokenFile == "" {
		return cli.Usage(fmt.Errorf("--manager and --token-file are needed: there is no %s", l.ConfigFile()))
	}
	in := io.Reader(os.Stdin)
	if i.tokenFile != "-" {
		f, err := os.Open(i.tokenFile)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxToken+1))
	if err != nil {
		return err
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(b) > maxToken {
		return fmt.Errorf("%s holds no token of 1 to %d bytes", i.tokenFile, maxToken)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "[service]\nname = %q\ndevice_type = %q\ninstall_root = %q\n\n[manager]\nurls = [%q]\nregistration_token = %q\n", i.name, i.deviceType, i.root, i.manager, token)
	if i.fingerprint != "" {
		fmt.Fprintf(&text, "cert_fingerprint = %q\n", i.fingerprint)
	}
	if i.caFile != "" {
		fmt.Fprintf(&text, "ca_file = %q\n", i.caFile)
	}
	text.WriteString("\n[upgrade]\nenabled = true\n")
	path := l.ConfigFile()
	if err := l.Disk().WriteFile(path, text.Bytes(), 0o600); err != nil {
		return err
	}
	c, err := agent.Load(path)
	if err == nil {
		_, err = agent.Check(c)
	}
	if err != nil { // the next run must not take it for an operator's own
		return errors.Join(cli.Usage(err), l.Disk().Remove(path))
	}
	i.say("wrote %s", path)
	return nil
}

// await prints what the service says of itself until it has registered.
func (i *installation) await(ctx context.Context, l state.Layout) error {
	journal := fmt.Sprintf("see journalctl -u %s.service -e", i.name)
	if i.wait == 0 {
		i.say("%s.service is started; it registers by itself", i.name)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, i.wait)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for said := ""; ; {
		if _, err := os.Lstat(l.CredentialsFile()); err == nil {
			i.say("registered with the manager; it upgrades this node from now on")
			return nil
		}
		out, err := exec.CommandContext(ctx, "systemctl", "show", i.name+".service", "--property=StatusText", "--value").Output()
		if words := strings.TrimSpace(string(out)); err == nil && words != said && words != "" {
			said = words
			i.say("%s: %s", i.name, words)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the node has not registered within %s; it goes on trying: %s", i.wait, journal)
		case <-tick.C:
		}
	}
}

func ownedByRoot(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Uid == 0
}

// command runs a program of the system, and says what it said if it fails.
func command(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
