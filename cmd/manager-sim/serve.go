package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

const (
	defaultDir  = "manager-sim-data"
	databaseEnv = "MANAGER_SIM_DATABASE"
)

func newServeCmd() *cobra.Command {
	var dir, listen, releasesListen, database string
	var remote bool
	var demo int
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the manager, and a host for the releases",
		Long: `Serve runs the manager (the WebSocket of the nodes, and the REST API) and a
release host, both with TLS and a self-signed certificate, until it is told to
stop. Everything that it keeps is in the data directory.`,
		Example: `  manager-sim serve
  curl -k -H "Authorization: Bearer $(cat manager-sim-data/admin.token)" https://127.0.0.1:8443/api/v1/nodes`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, addr := range []string{listen, releasesListen} {
				if err := checkListen(addr, remote); err != nil {
					return cli.Usage(err)
				}
			}
			if database == "" {
				database = os.Getenv(databaseEnv)
			}
			return serve(cmd, dir, listen, releasesListen, database, demo)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", defaultDir, "data directory; made if it is not there")
	f.StringVar(&listen, "listen", "127.0.0.1:8443", "address of the manager")
	f.StringVar(&releasesListen, "releases-listen", "127.0.0.1:8444", "address of the release host")
	f.StringVar(&database, "database", "", "postgres:// URL of a database to use instead of manager.db in --dir;\nwith a password in it, rather set "+databaseEnv)
	f.IntVar(&demo, "demo-fleet", 0, "add that many simulated nodes, in a group of their own")
	f.BoolVar(&remote, "allow-remote", false, "let --listen be more than loopback")
	return cmd
}

func checkListen(addr string, remote bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("listen address %q is not HOST:PORT", addr)
	}
	ip := net.ParseIP(host)
	if !remote && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%s is not a loopback address; this is a simulation, so add --allow-remote if you mean it", addr)
	}
	return nil
}

func serve(cmd *cobra.Command, dir, listen, releasesListen, database string, demo int) error {
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
	st, err := store.Open(cmp.Or(database, filepath.Join(dir, "manager.db")))
	if err != nil {
		return err
	}
	defer st.Close()
	if err := st.AddToken(ctx, server.Hash(registration)); err != nil {
		return err
	}
	releases := releasesUnder(dir)
	log, err := cli.NewLogger(cmd.ErrOrStderr(), "info")
	if err != nil {
		return err
	}
	m, err := server.New(server.Config{
		Store: st, AdminToken: admin, Log: log,
		Releases: func(_ context.Context, deviceType, channel string) ([]server.Release, error) {
			list, err := fakerelease.Index(releases, deviceType, channel)
			out := make([]server.Release, len(list))
			for i, r := range list {
				out[i] = server.Release(r)
			}
			return out, err
		},
	})
	if err != nil {
		return err
	}
	defer m.Close()

	g, ctx := errgroup.WithContext(ctx)
	hs := m.HTTPServer()
	if hs.Handler, err = web.Handler(m, m.Log); err != nil {
		return err
	}
	url, err := listenTLS(ctx, g, hs, listen, cert)
	if err != nil {
		return err
	}
	host, err := listenTLS(ctx, g, &http.Server{Handler: fakerelease.Handler(releases), ReadHeaderTimeout: 10 * time.Second}, releasesListen, cert)
	if err != nil {
		return err
	}
	if err := fakerelease.SetHost(releases, host, cert.PEM); err != nil {
		return err
	}
	fmt.Fprintf(out, `manager        %s
releases       %s
admin token    in %s

For a node's config.toml:
  urls = ["wss%s"]
  registration_token: in %s
  cert_fingerprint = %q
For a simulation build of the agent, in its environment:
  EDGE_AGENT_SIM_TRUST=%s
`, url, host, filepath.Join(dir, "admin.token"), strings.TrimPrefix(url, "https"),
		filepath.Join(dir, "registration.token"), cert.Fingerprint, absolute(filepath.Join(releases, "trust")))
	claim, err := m.NewClaim(ctx)
	if err != nil {
		return err
	}
	if claim != "" {
		fmt.Fprintf(out, "pages          %s/admin/claim?token=%s\n               (good once, for the first administrator)\n", url, claim)
	} else {
		fmt.Fprintf(out, "pages          %s/admin/nodes\n", url)
	}
	if demo > 0 {
		if err := startFleet(ctx, g, st, url, registration, cert, demo); err != nil {
			return err
		}
		fmt.Fprintf(out, "simulated nodes: %d, in the group %q\n", demo, demoGroup)
	}
	return g.Wait()
}

const demoGroup = "demo"

// startFleet adds simulated nodes, and puts each into the demo's group once it
// has registered. They keep no credentials: a manager that is started again
// gets new ones.
func startFleet(ctx context.Context, g *errgroup.Group, st store.Store, url, token string, cert selfsign.Cert, nodes int) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert.PEM)
	now := time.Now().UTC()
	group := store.Group{ID: uuid.NewString(), Name: demoGroup, CreatedAt: now}
	entry := store.Audit{Time: now, Actor: "demo", Action: "group.create", Target: group.ID, Details: []byte(`{"name":"` + demoGroup + `"}`)}
	if err := st.AddGroup(ctx, group, entry); errors.Is(err, store.ErrExists) {
		all, err := st.Groups(ctx)
		if err != nil {
			return err
		}
		group = all[slices.IndexFunc(all, func(g store.Group) bool { return g.Name == demoGroup })]
	} else if err != nil {
		return err
	}
	f, err := fleet.Start(ctx, fleet.Config{
		URL: "wss" + strings.TrimPrefix(url, "https") + wire.Path, Token: token, TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		Nodes: nodes, Step: 2 * time.Second, DeviceType: demoGroup,
	})
	if err != nil {
		return err
	}
	g.Go(func() error { f.Wait(); return nil })
	g.Go(func() error {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for missing := nodes; missing > 0; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			all, err := st.Nodes(ctx)
			if err != nil {
				return err
			}
			for _, n := range all {
				if n.DeviceType != demoGroup || n.GroupID != "" {
					continue
				}
				missing--
				details := []byte(`{"group_id":"` + group.ID + `"}`)
				if err := st.SetGroup(ctx, n.ID, group.ID, store.Audit{Time: time.Now().UTC(), Actor: "demo", Action: "node.group.set", Target: n.ID, Details: details}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return nil
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// listenTLS serves s until ctx is done.
func listenTLS(ctx context.Context, g *errgroup.Group, s *http.Server, addr string, cert selfsign.Cert) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12}
	g.Go(func() error {
		if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return s.Close() // sessions and streams have no end to wait for
	})
	return "https://" + l.Addr().String(), nil
}

// secretFile returns the secret that a file keeps, making it first if there is
// none. Only its owner can read it.
func secretFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret := server.NewSecret()
		return secret, os.WriteFile(path, []byte(secret+"\n"), 0o600)
	}
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" {
		return "", fmt.Errorf("%s is empty; remove it to have a new one made", path)
	}
	return secret, nil
}
