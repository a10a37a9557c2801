package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// resolve checks h and fills in its defaults; the error names the key.
func (h *HealthConfig) resolve() error {
	if h.HTTP != "" {
		u, err := url.Parse(h.HTTP)
		if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("http %q is not like http://127.0.0.1:8080/healthz", h.HTTP)
		}
	}
	if len(h.Command) > 0 && !filepath.IsAbs(h.Command[0]) {
		return fmt.Errorf("command %q does not start with the absolute path of a program", h.Command)
	}
	if h.TimeoutSecs == 0 {
		h.TimeoutSecs = 5
	}
	if h.TimeoutSecs < 1 || h.TimeoutSecs > 9 {
		return fmt.Errorf("timeout_secs = %d is outside 1 to 9 seconds", h.TimeoutSecs)
	}
	return nil
}

// probe asks what [health] names whether the service is well.
func (h HealthConfig) probe(ctx context.Context) error {
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
