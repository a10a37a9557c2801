package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

const (
	defaultDir  = "manager-sim-data"
	databaseEnv = "MANAGER_SIM_DATABASE"

	defaultListen         = "127.0.0.1:8443"
	defaultReleasesListen = "127.0.0.1:8444"
	listenEnv             = "MANAGER_SIM_LISTEN"
	releasesListenEnv     = "MANAGER_SIM_RELEASES_LISTEN"
)

func newServeCmd() *cobra.Command {
	var dir, listen, releasesListen, database string
	var remote bool
	var demo demoFleet
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the manager and a release host",
		Long: `Serve runs the manager (pages, REST API and the WebSocket of the nodes) and a release
host, both with TLS and a self-signed certificate, until SIGTERM or Ctrl-C. All its
data is in the data directory.`,
		Example: `  manager-sim serve
  manager-sim serve --demo-fleet 12 --demo-faults
  curl -k -H "Authorization: Bearer $(cat manager-sim-data/admin.token)" https://127.0.0.1:8443/api/v1/nodes`,
		Args: func(cmd *cobra.Command, args []string) error {
			// pflag takes the value of an optional flag only after "=".
			if cmd.Flags().Changed("demo-faults") && demo.spec == usualFaults && len(args) == 1 {
				demo.spec, args = args[0], nil
			}
			return cli.ExactArgs(0)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := demo.check(cmd.Flags().Changed("demo-faults")); err != nil {
				return cli.Usage(err)
			}
			for _, addr := range []string{listen, releasesListen} {
				if err := checkListen(addr, remote); err != nil {
					return cli.Usage(err)
				}
			}
			if database == "" {
				database = os.Getenv(databaseEnv)
			}
			return serve(cmd, dir, listen, releasesListen, database, &demo)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", defaultDir, "data directory; created if it is missing")
	f.StringVar(&listen, "listen", cmp.Or(os.Getenv(listenEnv), defaultListen), "address of the manager; default also from "+listenEnv)
	f.StringVar(&releasesListen, "releases-listen", cmp.Or(os.Getenv(releasesListenEnv), defaultReleasesListen), "address of the release host; default also from "+releasesListenEnv)
	f.StringVar(&database, "database", "", "postgres:// or postgresql:// URL of a database to use instead of manager.db in --dir;\nif it has a password, better set "+databaseEnv)
	f.IntVar(&demo.nodes, "demo-fleet", 0, "add this many simulated nodes in the group demo; a restart keeps them")
	f.StringVar(&demo.spec, "demo-faults", "", "faults of the demo fleet, such as refused=2,slow=1; KIND is one of:\n"+faultHelp()+"without a value: "+usualFaults)
	f.Lookup("demo-faults").NoOptDefVal = usualFaults
	f.BoolVar(&remote, "allow-remote", false, "allow other addresses than loopback")
	return cmd
}

func checkListen(addr string, remote bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("listen address %q is not HOST:PORT", addr)
	}
	ip := net.ParseIP(host)
	if !remote && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%s is not a loopback address; manager-sim is for tests; add --allow-remote to allow other addresses", addr)
	}
	return nil
}

func serve(cmd *cobra.Command, dir, listen, releasesListen, database string, demo *demoFleet) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cert, err := selfsign.Ensure(filepath.Join(dir, "tls"))
	if err != nil {
		return err
	}
	admin, err := secretFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		return err
	}
	registration, err := secretFile(filepath.Join(dir, "registration.token"))
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, cmp.Or(database, filepath.Join(dir, "manager.db")))
	if err != nil {
		return err
	}
	defer st.Close()
	if err := st.AddToken(ctx, secret.Hash(registration)); err != nil {
		return err
	}
	releases := releasesUnder(dir)
	log, err := cli.NewLogger(cmd.ErrOrStderr(), "info")
	if err != nil {
		return err
	}
	// Before server.New, which records that a manager runs, and continues the rollouts: a
	// second manager that finds its address occupied changes nothing.
	l, err := listenTCP(listen)
	if err != nil {
		return err
	}
	defer l.Close()
	hostListener, err := listenTCP(releasesListen)
	if err != nil {
		return err
	}
	defer hostListener.Close()
	m, err := server.New(server.Config{
		Store: st, AdminToken: admin, Log: log,
		Releases: func(_ context.Context, deviceType, channel string) ([]api.Release, error) {
			list, err := fakerelease.Index(releases, deviceType, channel)
			return append(list, demo.releases(deviceType, channel)...), err
		},
		Manifest: func(_ context.Context, deviceType, channel, version string) ([]byte, error) {
			return fakerelease.Manifest(releases, deviceType, channel, version)
		},
	})
	if err != nil {
		return err
	}
	defer m.Close()

	g, ctx := errgroup.WithContext(ctx)
	hs := m.HTTPServer()
	if hs.Handler, err = web.Handler(m, m.Users, m.Log); err != nil {
		return err
	}
	url := serveTLS(ctx, g, hs, l, cert)
	host := serveTLS(ctx, g, &http.Server{Handler: fakerelease.Handler(releases), ReadHeaderTimeout: 10 * time.Second}, hostListener, cert)
	if err := fakerelease.SetHost(releases, host, cert.PEM); err != nil {
		return err
	}
	if err := writeFileAtomically(filepath.Join(dir, urlFile), []byte(url+"\n"), 0o644); err != nil {
		return err
	}
	if demo.nodes > 0 {
		if err := demo.start(ctx, g, st, dir, url, registration, cert); err != nil {
			return err
		}
	}
	claim, err := m.Users.NewClaim(ctx)
	if err != nil {
		return err
	}
	welcome{dir: dir, url: url, host: host, fingerprint: cert.Fingerprint, claim: claim, demo: demo}.print(out)
	return g.Wait()
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// listenTCP listens at an address of --listen or --releases-listen.
func listenTCP(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w; choose another one with --listen or --releases-listen", err)
	}
	return l, err
}

// serveTLS serves s until ctx is done, and returns its URL.
func serveTLS(ctx context.Context, g *errgroup.Group, s *http.Server, l net.Listener, cert selfsign.Cert) string {
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12}
	g.Go(func() error {
		if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return s.Close() // sessions and streams do not end by themselves
	})
	return "https://" + l.Addr().String()
}

// secretFile returns the secret in a file. It creates a missing file, which only the
// owner can read.
func secretFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		made := secret.New()
		return made, os.WriteFile(path, []byte(made+"\n"), 0o600)
	}
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" {
		return "", fmt.Errorf("%s is empty; remove it to create a new one", path)
	}
	return secret, nil
}
