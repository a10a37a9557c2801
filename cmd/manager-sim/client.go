package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/spf13/cobra"
)

// client is a command's connection to a manager. Connect sets its api.Client.
type client struct {
	url, tokenFile, caFile, dir string
	json                        bool
	*api.Client

	unreadable map[string]int // how many entries the manager left out of lists, by path
}

// flags adds the flags of a connection to cmd. RunE of cmd then connects first, and its
// error gets the exit code that fits it.
func (c *client) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.dir, "dir", defaultDir, "data directory of serve, with its certificate and token")
	f.StringVar(&c.url, "url", "", "URL of the manager (default: the address of serve)")
	f.StringVar(&c.tokenFile, "token-file", "", "file with the bearer token (default: admin.token in --dir)")
	f.StringVar(&c.caFile, "ca-file", "", "PEM file with the CA of the manager's certificate (default: tls/cert.pem in --dir)")
	f.BoolVar(&c.json, "json", false, "print JSON")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.connect(); err != nil {
			return err
		}
		err := withExitCode(run(cmd, args))
		if n := c.leftOut(); n > 0 && !c.json {
			fmt.Fprintln(cmd.ErrOrStderr(), unreadableText(n))
		}
		return err
	}
}

// urlFile is the file in the data directory with the URL of the manager.
const urlFile = "manager.url"

// managerURL returns the URL of the manager of a data directory.
func managerURL(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, urlFile))
	if err != nil {
		return "https://" + defaultListen
	}
	return strings.TrimSpace(string(b))
}

// answerTimeout bounds each step until the beginning of an answer.
const answerTimeout = 30 * time.Second

// connect sets the api.Client. It opens no connection and reads no secret yet.
func (c *client) connect() error {
	if c.url == "" {
		c.url = managerURL(c.dir)
	}
	if u, err := url.Parse(c.url); err != nil {
		return cli.Usage(fmt.Errorf("--url: %w", err))
	} else if u.Scheme != "https" {
		return cli.Usage(fmt.Errorf("--url %q does not begin with https://", c.url))
	}
	if c.tokenFile == "" {
		c.tokenFile = filepath.Join(c.dir, "admin.token")
	}
	if c.caFile == "" {
		c.caFile = filepath.Join(c.dir, "tls", "cert.pem")
	}
	c.unreadable = make(map[string]int)
	c.Client = &api.Client{
		BaseURL: c.url,
		ReadToken: func() (string, error) {
			b, err := os.ReadFile(c.tokenFile)
			if err != nil {
				return "", fmt.Errorf("bearer token: %w (is --dir the data directory of a manager?)", err)
			}
			return strings.TrimSpace(string(b)), nil
		},
		Unreadable: func(path string, n int) { // each page of a list has the number of the whole list
			path, _, _ = strings.Cut(path, "?")
			c.unreadable[path] = max(c.unreadable[path], n)
		},
		HTTP: &http.Client{Transport: &http.Transport{DialTLSContext: c.dial, ResponseHeaderTimeout: answerTimeout}},
	}
	return nil
}

// leftOut returns how many entries the manager left out of the lists that were read.
func (c *client) leftOut() int {
	k := 0
	for _, n := range c.unreadable {
		k += n
	}
	return k
}

func unreadableText(n int) string {
	if n == 1 {
		return "1 record could not be read; see the log and the database of the manager"
	}
	return fmt.Sprintf("%d records could not be read; see the log and the database of the manager", n)
}

// fileError is an error of a local file. The manager was not called.
type fileError struct{ error }

// dial connects to a manager whose certificate the CA file verifies.
func (c *client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	pem, err := os.ReadFile(c.caFile)
	if err != nil {
		return nil, fileError{fmt.Errorf("certificate: %w (is --dir the data directory of a manager?)", err)}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fileError{fmt.Errorf("certificate: %s contains none", c.caFile)}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	return d.DialContext(ctx, network, addr)
}

// unreachable gives an error the exit code of a manager that cannot be reached.
func unreachable(err error) error { return cli.Exit(cli.Unreachable, err) }

// withExitCode gives an error of a call the exit code that fits it.
func withExitCode(err error) error {
	var p *api.Problem
	switch {
	case errors.As(err, new(fileError)):
		file, _ := errors.AsType[fileError](err)
		return file.error
	case errors.Is(err, api.ErrUnreachable):
		return unreachable(fmt.Errorf("%w (does the manager run? manager-sim serve)", err))
	case errors.As(err, &p) && p.Status == http.StatusBadRequest: // an invalid argument or flag
		return cli.Usage(err)
	}
	return err
}

// isConflict reports whether the manager refused a call because of its state.
func isConflict(err error) bool {
	p, ok := errors.AsType[*api.Problem](err)
	return ok && p.Status == http.StatusConflict
}

// printEmpty prints a list with --json, and prints none for an empty list. It reports
// whether nothing is left to print.
func printEmpty[T any](c *client, cmd *cobra.Command, field string, list []T, none string) (done bool, err error) {
	switch {
	case c.json:
		answer := map[string]any{field: list}
		if n := c.leftOut(); n > 0 {
			answer["unreadable"] = n
		}
		return true, json.NewEncoder(cmd.OutOrStdout()).Encode(answer)
	case len(list) == 0:
		_, err := fmt.Fprintln(cmd.ErrOrStderr(), none)
		return true, err
	}
	return false, nil
}

// write prints the manager's answer as it is.
func write(cmd *cobra.Command, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := cmd.OutOrStdout().Write(b)
	return err
}

// stamp returns a time as the API shows it; "" for the zero time.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}
