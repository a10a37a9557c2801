package main

import (
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
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

const defaultDir = "manager-sim-data"

func newServeCmd() *cobra.Command {
	var dir, listen, releasesListen string
	var remote bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the manager, and a host for the releases",
		Long: `Serve runs the manager (the WebSocket of the nodes, and the REST API) and a
release host, both with TLS and a self-signed certificate, until it is told to
stop. Everything that it keeps is in the data directory.`,
		Example: `  manager-sim serve
  curl -k -H "Authorization: Bearer $(cat manager-sim-data/admin.token)" https://127.0.0.1:8443/api/v1/nodes`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, addr := range []string{listen, releasesListen} {
				if err := checkListen(addr, remote); err != nil {
					return usageError{err}
				}
			}
			return serve(cmd, dir, listen, releasesListen)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", defaultDir, "data directory; made if it is not there")
	f.StringVar(&listen, "listen", "127.0.0.1:8443", "address of the manager")
	f.StringVar(&releasesListen, "releases-listen", "127.0.0.1:8444", "address of the release host")
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

func serve(cmd *cobra.Command, dir, listen, releasesListen string) error {
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
	st, err := store.Open(filepath.Join(dir, "manager.db"))
	if err != nil {
		return err
	}
	defer st.Close()
	if err := st.AddToken(ctx, server.Hash(registration)); err != nil {
		return err
	}
	releases := releasesUnder(dir)
	m, err := server.New(server.Config{
		Store: st, AdminToken: admin,
		Log: zerolog.New(zerolog.ConsoleWriter{Out: cmd.ErrOrStderr(), TimeFormat: time.TimeOnly}).With().Timestamp().Logger(),
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
	url, err := listenTLS(ctx, g, m.HTTPServer(), listen, cert)
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
	return g.Wait()
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
