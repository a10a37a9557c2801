package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/probe"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/systemd"
)

// service checks that the service is running, and in attached mode the agent.
func (d *doctor) service(ctx context.Context) {
	if systemd.Booted() != nil {
		return // already reported
	}
	units := []string{d.unit}
	if d.agent != d.unit {
		units = append(units, d.agent)
	}
	changed := time.Time{}
	if res, err := d.l.Read(); err == nil {
		changed = res.State.Since
		if res.State.Status == state.PendingHealth { // the restarts of a trial are no crash loop
			changed = time.Now()
		}
	}
	for _, unit := range units {
		s, err := systemd.QueryState(ctx, unit)
		if err != nil || s.Load != "loaded" {
			continue // already reported
		}
		if s = recheck(ctx, s, changed); !strings.HasPrefix(s.Active, "active") || s.CrashLoop(time.Now(), changed) {
			if f, bad := stopped(s, changed); bad {
				d.check("service "+unit, f)
				continue
			}
		}
		d.check("service " + unit)
	}
}

// dependency checks that [health] dependency answers, if it is set.
func (d *doctor) dependency(ctx context.Context) {
	if !d.c.Health.Dependency.Set() {
		return
	}
	var faults []fault
	if err := probe.Dependency(ctx, d.c.Health, stage.ClockOf(d.l)); err != nil {
		faults = append(faults, fault{err.Error() + "; the node refuses upgrades until it answers", "bring it back, or correct health.dependency in " + d.config + " and restart the service"})
	}
	d.check("dependency", faults...)
}

// recheck waits 3 s and reads the state again, if the unit was restarted a short time ago.
// Only the number of restarts tells a service that is starting from one that crashes.
func recheck(ctx context.Context, s systemd.State, changed time.Time) systemd.State {
	if s.Active != "active" || s.Restarts == 0 || time.Since(s.Since) > 10*time.Second || s.FollowsUpgrade(changed) || s.CrashLoop(time.Now(), changed) {
		return s
	}
	select {
	case <-ctx.Done():
		return s
	case <-time.After(3 * time.Second):
	}
	if again, err := systemd.QueryState(ctx, s.Unit); err == nil && (again.Restarts != s.Restarts || again.Active != "active") {
		if again.Active == "active" { // it was restarted meanwhile
			again.Sub, again.Result = "auto-restart", "" // how the last run ended is unknown
		}
		return again
	}
	return s
}

// stopped describes why a service is not running, and reports whether it is a fault.
func stopped(s systemd.State, changed time.Time) (fault, bool) {
	see := "see why: journalctl -u " + s.Unit + " -n 50"
	ended := s.EndReason()
	if s.CrashLoop(time.Now(), changed) {
		ended = s.LoopReason()
	}
	if ended != "" {
		ended = " (" + ended + ")"
	}
	switch {
	case s.CrashLoop(time.Now(), changed):
		return fault{fmt.Sprintf("%s is in a crash loop: systemd restarted it %s%s", s.Unit, times(s.Restarts), ended), see}, true
	case s.Active == "failed":
		return fault{fmt.Sprintf("%s has failed%s", s.Unit, ended), see + "; then: systemctl reset-failed " + s.Unit + " && systemctl start " + s.Unit}, true
	case s.Active == "inactive" || s.Active == "deactivating":
		return fault{fmt.Sprintf("%s is stopped%s", s.Unit, ended), strings.Replace("run: "+s.StartCommand(), "run: see", "see", 1)}, true
	}
	return fault{}, false
}

// times returns "once" or "N times".
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// manager checks the link to the manager, from the report of the agent, or else by a
// probe.
func (d *doctor) manager(ctx context.Context) {
	if d.failed("ca_file") {
		return
	}
	if len(d.c.Manager.URLs) == 0 {
		d.check("manager (" + agent.NoManager + ")")
		return
	}
	_, err := os.Lstat(d.l.CredentialsFile())
	registered := err == nil
	if errors.Is(err, fs.ErrNotExist) && d.c.Manager.RegistrationToken.IsZero() {
		d.check("manager", fault{"this node has not registered, and has no token for it", "set registration_token in [manager] of " + d.config + ", and restart the service"})
		return
	}
	reported, known := agent.ParseConnection(d.state.Text)
	if d.state.Active != "active" && d.state.Active != "activating" {
		known = false
	}
	if known && reported.Connected {
		d.check("manager")
		return
	}
	never := ""
	if !registered {
		never = ", and this node has never registered"
	}
	found, unreachable := agent.Probe(ctx, d.c, agent.ProbeOptions{})
	if unreachable == nil && !found.Skipped() { // where it is skipped, a manager answers
		unreachable = found.Err()
	}
	problem := ""
	switch {
	case unreachable != nil:
		problem = strings.Join(strings.Fields(strings.ReplaceAll(unreachable.Error(), "\n", "; ")), " ")
	case known:
		problem = fmt.Sprintf("%s: %s", reported.URL, reported.Problem)
	default:
		d.check("manager")
		return
	}
	d.check("manager", fault{"not connected to the manager" + never + ": " + problem, d.remedyOf(problem)})
}

// setClock is the remedy of a wrong clock.
const setClock = "set this device's clock: timedatectl set-ntp true, or timedatectl set-time 'YYYY-MM-DD hh:mm:ss'; the agent tries again by itself"

// remedyOf returns the remedy of a connection error.
func (d *doctor) remedyOf(problem string) string {
	in := " in [manager] of " + d.config
	then := ", then restart the service: systemctl restart " + d.agent
	for _, proxy := range []string{d.c.Manager.Proxy.Reveal(), os.Getenv("HTTPS_PROXY"), os.Getenv("https_proxy")} {
		if u, err := url.Parse(proxy); err == nil && u.Host != "" && (strings.Contains(problem, u.Host) || strings.Contains(problem, "lookup "+u.Hostname())) {
			return "the proxy " + u.Host + " fails: correct proxy" + in + ", or HTTPS_PROXY in the unit" + then
		}
	}
	for _, r := range []struct{ text, remedy string }{
		{"clock is not set", setClock}, {"clock is ahead", setClock}, {"if the clock is behind", setClock},
		{"has expired", "if this device's clock is ahead, set it (timedatectl set-ntp true); otherwise renew the manager's certificate"},
		{"refuses this node", "the token is used up, wrong or expired, or the node was removed at the manager: get a new token there, set registration_token" + in + ", remove " + d.l.CredentialsFile() + then},
		{"is damaged; remove it", "set registration_token" + in + " to a new token of the manager, remove " + d.l.CredentialsFile() + then},
		{"after authentication", "the manager accepts this node and then ends the connection: see the manager's log"},
		{"unknown authority", "set ca_file (the PEM of a private CA), or cert_fingerprint for a self-signed certificate," + in + then},
		{"neither is pinned", "the manager's certificate changed, or another server answers: compare it at the manager, and set cert_fingerprint" + in + then},
		{"fingerprint", "the manager's certificate changed, or another server answers: compare it at the manager, and set cert_fingerprint" + in + then},
		{"x509:", "use a name in urls" + in + " that the manager's certificate has, or set cert_fingerprint" + then},
		{"first record does not look like a TLS handshake", "the port answers without TLS: correct the port in urls" + in + then},
		{"no such host", "correct the host in urls" + in + ", or see this device's DNS: getent hosts HOST; cat /etc/resolv.conf"},
		{"lookup ", "see this device's DNS: getent hosts HOST; cat /etc/resolv.conf"},
		{"proxyconnect", "correct proxy" + in + ", or HTTPS_PROXY in the unit" + then},
		{"proxy", "correct proxy" + in + ", or HTTPS_PROXY in the unit" + then},
		{"connection refused", "nothing listens there: correct the port in urls" + in + ", or start the manager, or open its firewall"},
		{"answers 404", "that server is no manager, or urls has a wrong path: correct urls" + in + then},
		{"answers 401", "a proxy or another server asks for a login: correct urls" + in + then},
		{"answers 403", "a proxy or another server refuses the request: correct urls" + in + then},
		{"answers 429", "the manager is busy, and the agent tries again by itself: see the manager's log"},
		{"answers 5", "the manager or a proxy before it has a fault: see its log"},
		{"answers ", "that server is no manager: correct urls" + in + then},
		{"network is unreachable", "this device has no route to the manager: see ip route"},
		{"no route to host", "this device has no route to the manager: see ip route"},
		{"timeout", "the manager does not answer: check the network and the firewalls between this device and the manager"},
		{"timed out", "the manager does not answer: check the network and the firewalls between this device and the manager"},
		{"deadline exceeded", "the manager does not answer: check the network and the firewalls between this device and the manager"},
		{"address family not supported", "the unit's sandbox forbids it: add RestrictAddressFamilies=AF_NETLINK AF_INET AF_INET6 to " + d.agent},
	} {
		if strings.Contains(problem, r.text) {
			return r.remedy
		}
	}
	return "see the agent's log: journalctl -u " + d.agent + " -n 50"
}
