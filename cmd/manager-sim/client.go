package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// client calls the REST API of a manager: what the commands below share.
type client struct {
	url, tokenFile, caFile, dir string
	json                        bool
}

func (c *client) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.dir, "dir", defaultDir, "data directory of `serve`: its certificate and token are taken from there")
	f.StringVar(&c.url, "url", "https://127.0.0.1:8443", "the manager")
	f.StringVar(&c.tokenFile, "token-file", "", "file with the bearer token (default: admin.token in --dir)")
	f.StringVar(&c.caFile, "ca-file", "", "PEM that the manager's certificate is checked by (default: tls/cert.pem in --dir)")
	f.BoolVar(&c.json, "json", false, "print JSON")
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

func (c *client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	token, ca := c.tokenFile, c.caFile
	if token == "" {
		token = filepath.Join(c.dir, "admin.token")
	}
	if ca == "" {
		ca = filepath.Join(c.dir, "tls", "cert.pem")
	}
	secret, err := os.ReadFile(token)
	if err != nil {
		return nil, fmt.Errorf("bearer token: %w (is this the directory of a manager? see --dir)", err)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate: %s holds none", ca)
	}
	var b []byte
	if body != nil {
		if b, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(secret)))
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w (does the manager run? manager-sim serve)", err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		var problem struct {
			Detail string `json:"detail"`
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
			problem.Detail = resp.Status
		}
		return nil, errors.New(problem.Detail)
	}
	return resp, nil
}

// call makes a call and decodes its answer into to; with --json it prints the
// answer, too.
func (c *client) call(ctx context.Context, method, path string, body, to any) ([]byte, error) {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	return b, json.Unmarshal(b, to)
}

// record is what the commands read of the manager's stream.
type record struct {
	Type      string `json:"type"`
	Time      string `json:"time"`
	NodeID    string `json:"node_id"`
	Version   string `json:"version"`
	ErrorCode string `json:"error_code"`
	CommandID string `json:"command_id"`
	Severity  string `json:"severity"`
	Message   string `json:"message"`
	Success   bool   `json:"success"`
	RolloutID string `json:"rollout_id"`
	Status    string `json:"status"`
	Wave      int    `json:"wave"`
}

// follow calls each with every record from now on, until it says that it is
// done. begin is called once the stream listens.
func (c *client) follow(ctx context.Context, begin func() error, each func(record, []byte) (done bool, err error)) error {
	resp, err := c.do(ctx, http.MethodGet, "/api/v1/events/stream", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for first := true; lines.Scan(); {
		if first { // the comment that says that it listens
			first = false
			if err := begin(); err != nil {
				return err
			}
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var r record
		if json.Unmarshal([]byte(data), &r) != nil {
			continue
		}
		if done, err := each(r, []byte(data)); done || err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(errors.New("the manager ended the stream; what happened meanwhile is in its records"), lines.Err())
}
