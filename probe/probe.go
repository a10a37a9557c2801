// Package probe asks a service whether it is well, as [health] of config.toml
// says: by an HTTP request, a command, or both.
//
// A probe changes nothing, follows no redirect, uses no proxy, and ends within
// health.timeout_secs. It does not decide what an unhealthy answer means.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/config"
)

// Run asks what h names whether the service is well. The error says what is
// wrong. A Health that names nothing is well.
func Run(ctx context.Context, h config.Health) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(h.TimeoutSecs)*time.Second,
		fmt.Errorf("no answer within %d s (health.timeout_secs)", h.TimeoutSecs))
	defer cancel()
	if h.HTTP != "" {
		if err := get(ctx, h.HTTP); err != nil {
			return err
		}
	}
	if len(h.Command) > 0 {
		return command(ctx, h.Command)
	}
	return nil
}

// probeClient follows nothing and keeps nothing: a probe is of one address,
// now, and never through a proxy.
var probeClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("health.http: %w", err)
	}
	resp, err := probeClient.Do(req)
	if err != nil {
		return fmt.Errorf("health.http: %w", causeOf(ctx, err))
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("health.http: %s answers %s", url, resp.Status)
	}
	return nil
}

// command runs without a shell, and without the agent's own environment:
// NOTIFY_SOCKET is not for it.
func command(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if said := strings.Join(strings.Fields(string(out)), " "); said != "" {
			return fmt.Errorf("health.command: %w: %s", causeOf(ctx, err), strings.ToValidUTF8(said, "?"))
		}
		return fmt.Errorf("health.command: %w", causeOf(ctx, err))
	}
	return nil
}

// causeOf names the time limit, where that is what ended the probe.
func causeOf(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// tail keeps the last 200 bytes that were written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if over := len(*t) - 200; over > 0 {
		*t = append((*t)[:0], (*t)[over:]...)
	}
	return len(p), nil
}
