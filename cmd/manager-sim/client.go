package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/spf13/cobra"
)

// client calls the REST API of a manager: what the commands below share.
type client struct {
	url, tokenFile, caFile, dir string
	json                        bool
	hc                          *http.Client // made by the first call
}

func (c *client) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.dir, "dir", defaultDir, "data directory of serve: its certificate and token are taken from there")
	f.StringVar(&c.url, "url", "", "the manager (default: where serve listens)")
	f.StringVar(&c.tokenFile, "token-file", "", "file with the bearer token (default: admin.token in --dir)")
	f.StringVar(&c.caFile, "ca-file", "", "PEM that the manager's certificate is checked by (default: tls/cert.pem in --dir)")
	f.BoolVar(&c.json, "json", false, "print JSON")
}

// urlFile is the file in the data directory with the URL of the manager.
const urlFile = "manager.url"

// managerURL returns where the manager of a data directory listens.
func managerURL(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, urlFile))
	if err != nil {
		return "https://" + defaultListen
	}
	return strings.TrimSpace(string(b))
}

const (
	maxAnswer     = 64 << 20         // bytes that are read of an answer
	answerTimeout = 30 * time.Second // for its beginning
)

// refusal is an answer of the manager that is no success.
type refusal struct {
	status       int
	code, detail string
}

func (r *refusal) Error() string { return r.detail }

// unreachable marks an error of the network.
func unreachable(err error) error { return cli.Exit(cli.Unreachable, err) }

// isUnreachable reports whether the manager gave no answer, or said that it
// cannot answer now.
func isUnreachable(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return r.status >= 500 || r.status == http.StatusTooManyRequests
	}
	return errors.Is(err, errNoAnswer)
}

var errNoAnswer = errors.New("the manager gives no answer")

// open prepares the connection.
func (c *client) open() error {
	if c.hc != nil {
		return nil
	}
	if c.url == "" {
		c.url = managerURL(c.dir)
	}
	c.url = strings.TrimSuffix(c.url, "/")
	if !strings.HasPrefix(c.url, "https://") {
		return cli.Usage(fmt.Errorf("--url %q does not begin with https://", c.url))
	}
	if c.tokenFile == "" {
		c.tokenFile = filepath.Join(c.dir, "admin.token")
	}
	if c.caFile == "" {
		c.caFile = filepath.Join(c.dir, "tls", "cert.pem")
	}
	pem, err := os.ReadFile(c.caFile)
	if err != nil {
		return fmt.Errorf("certificate: %w (is --dir the data directory of a manager?)", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("certificate: %s holds none", c.caFile)
	}
	c.hc = &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: answerTimeout, ResponseHeaderTimeout: answerTimeout,
	}}
	return nil
}

func (c *client) do(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(c.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("bearer token: %w (is --dir the data directory of a manager?)", err)
	}
	var b []byte
	if body != nil {
		if b, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(b))
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--url: %w", err))
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(secret)))
	resp, err := c.hc.Do(req)
	if err != nil {
		return nil, unreachable(fmt.Errorf("%w: %w (does the manager run? manager-sim serve)", errNoAnswer, err))
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		var problem struct {
			Detail string `json:"detail"`
			Code   string `json:"code"`
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
			problem.Detail = resp.Status
		}
		err := error(&refusal{resp.StatusCode, problem.Code, problem.Detail})
		if resp.StatusCode == http.StatusBadRequest { // a value that the command passed on
			err = cli.Usage(err)
		}
		return nil, err
	}
	return resp, nil
}

// call makes a call, decodes its answer into to (unless that is nil), and returns
// the answer as it is.
func (c *client) call(ctx context.Context, method, path string, body, to any) ([]byte, error) {
	resp, err := c.do(ctx, method, path, body, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, unreachable(fmt.Errorf("%w: %w", errNoAnswer, err))
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("%s %s: the answer has more than %d bytes", method, path, maxAnswer)
	}
	if to == nil {
		return b, nil
	}
	if err := json.Unmarshal(b, to); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return b, nil
}

// all reads a list of the API to its end: the entries under key, page after page.
func (c *client) all(ctx context.Context, path, key string) ([]json.RawMessage, error) {
	list := []json.RawMessage{}
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	for page := path; ; {
		var answer map[string]json.RawMessage
		if _, err := c.call(ctx, http.MethodGet, page, nil, &answer); err != nil {
			return nil, err
		}
		var entries []json.RawMessage
		var next string
		if err := json.Unmarshal(answer[key], &entries); err != nil {
			return nil, fmt.Errorf("GET %s: %s: %w", path, key, err)
		}
		list = append(list, entries...)
		if raw := answer["next"]; raw != nil {
			if err := json.Unmarshal(raw, &next); err != nil {
				return nil, fmt.Errorf("GET %s: next: %w", path, err)
			}
		}
		if next == "" {
			return list, nil
		}
		page = path + sep + "after=" + url.QueryEscape(next)
	}
}

// entries returns all of a list. With --json it prints the list and returns nothing; of
// an empty one it says so.
func entries[T any](c *client, cmd *cobra.Command, path, field, none string) ([]T, error) {
	all, err := c.all(cmd.Context(), path, field)
	if err != nil {
		return nil, err
	}
	if c.json {
		return nil, json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{field: all})
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(cmd.ErrOrStderr(), none)
		return nil, err
	}
	return decode[T](all)
}

// decode returns the entries of a list as values.
func decode[T any](entries []json.RawMessage) ([]T, error) {
	out := make([]T, len(entries))
	for i, raw := range entries {
		if err := json.Unmarshal(raw, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func write(cmd *cobra.Command, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := cmd.OutOrStdout().Write(b)
	return err
}
