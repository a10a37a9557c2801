package rig_test

import (
	"context"
	_ "embed"
	"fmt"
	"github.com/bilbycast/edge-agent/internal/box"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/chromedp/chromedp"
)

// An operator upgrades one node, with a real agent. Each failure shows its badge, its code
// and the remedy.
func TestBrowserUpgradesANode(t *testing.T) {
	if testing.Short() {
		t.Skip("it drives a browser through two upgrades")
	}
	b := setup(t, rig.NodeConfig{MaxBootAttempts: 1})
	b.publish("1.1.0", "")
	w := browse(t, b.Rig)
	w.sees("idle")
	w.click("#u-" + b.id) // opens the dialog
	w.holds(`document.querySelector("dialog")?.open === true`)
	w.accessible()
	w.picture("upgrade")
	w.fill("dialog input[name=version]", "1.1.0")
	w.click("dialog button.primary")
	w.sees("Node " + b.id)
	w.sees("upgrade_completed")
	w.sees("updated")
	w.sees("reconnected running 1.1.0") // the node's connections are part of it
	w.picture("node")

	for i, tt := range []struct {
		fault      fakerelease.Fault
		badge      string
		code, says string
	}{
		{fakerelease.BadSignature, "upgrade failed", "upgrade_signature_invalid", "Treat it as tampering"},
		{fakerelease.WrongIdentity, "upgrade failed", "upgrade_identity_not_allowed", "old workflow"},
		{fakerelease.NoLogEntry, "upgrade failed", "upgrade_rekor_invalid", "transparency log"},
		{fakerelease.BadChecksum, "upgrade failed", "upgrade_checksum_mismatch", "report it as a security problem"},
		{fakerelease.WrongArch, "upgrade failed", "upgrade_arch_mismatch", "architecture"},
		{fakerelease.ExitsAtOnce, "rolled back", "upgrade_rolled_back", "safe to investigate"},
	} {
		version := fmt.Sprintf("1.2.%d", i)
		b.publish(version, tt.fault)
		w.open("/admin/nodes/" + b.id + "/upgrade") // by the page, as without JavaScript
		w.fill("input[name=version]", version)
		w.click("form button.primary[class=primary]")
		w.sees(tt.badge)
		w.sees(tt.code)
		w.open("/admin/nodes")
		w.sees(tt.badge)
		w.sees(tt.code)
		w.sees(tt.says)
		n, err := b.Client.Node(t.Context(), b.id)
		if err != nil || n.Error == "" {
			t.Fatalf("the API has no message of the node: %v", err)
		}
		w.sees(n.Error[:min(len(n.Error), 100)]) // the cause, and not only help on its code
		w.fits(390)
	}
	w.picture("nodes-failed")
	w.pictureAt("nodes-phone", 390, 900)
	// What the node's own policy refuses: an older major, and a channel that the
	// form does not offer.
	for _, tt := range []struct{ version, channel, code string }{{"0.9.0", "stable", "upgrade_version_too_old"}, {"1.3.0", "beta", "upgrade_channel_not_allowed"}} {
		w.open("/admin/nodes/" + b.id + "/upgrade")
		w.fill("input[name=version]", tt.version)
		w.holds(fmt.Sprintf(`(document.querySelector("[name=channel] option").value = %q) !== ""`, tt.channel))
		w.click("form button.primary[class=primary]")
		w.sees(tt.code)
	}
	w.open("/admin/nodes/" + b.id + "/upgrade")
	w.fill("input[name=version]", "9.9.9-")
	w.do("without the browser's own check", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Evaluate[bool](`document.querySelector("#dialog form").noValidate = true`)(ctx, t)
		return err
	}))
	w.click("form button.primary[class=primary]")
	w.sees("is not")
	for _, path := range []string{"/admin/nodes", "/admin/nodes/" + b.id, "/admin/nodes/" + b.id + "/upgrade", "/admin/events?category=upgrade", "/admin/audit", "/admin/users", "/admin/users/root", "/admin/tokens", "/admin/password", "/admin/nodes/" + b.id + "/remove", "/admin/nowhere"} {
		w.open(path)
		w.accessible()
		w.fits(1100)
		w.fits(1440)
		w.fits(390)
		w.fits(320)
	}
	w.open("/admin/users")
	w.picture("users")
	w.open("/admin/tokens")
	w.fill("input[name=name]", "deploy-pipeline")
	w.click("input[value='*']")
	w.click("#create-token")
	w.sees("Copy the token now")
	w.accessible()
	w.fits(390)
	w.open("/admin/tokens") // without the secret
	w.sees("deploy-pipeline")
	w.picture("tokens")
	w.confirm("a[id^=revoke]", "the pipeline was replaced")
	w.sees("No tokens yet.")
	w.open("/admin/events?category=upgrade")
	w.sees("upgrade_rolled_back")
	w.picture("events")
	w.open("/admin/audit")
	w.sees("node.upgrade.request")
	w.sees("the pipeline was replaced")
	w.picture("audit")
}

// An operator upgrades a group of real agents.
func TestBrowserUpgradesAGroupOfAgents(t *testing.T) {
	box.Slow(t)
	b := setup(t, rig.NodeConfig{MaxBootAttempts: 1})
	b.publish("1.1.0", "")
	b.publish("1.2.0", fakerelease.ExitsAtOnce)
	ids := []string{b.id}
	mark := 0
	for i, disabled := range []bool{false, false, true} {
		c := rig.NodeConfig{Name: fmt.Sprint("node", i+2), MaxBootAttempts: 1, Version: "1.0.0", Binary: b.bin["1.0.0"], Disabled: disabled}
		n, err := b.Install(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		n.Start()
		t.Cleanup(n.Stop)
		e := b.wait(mark, "the first health beat", func(e rig.Entry) bool {
			known := false
			for _, id := range ids {
				known = known || e.NodeID == id
			}
			return e.Type == "capabilities" && !known
		})
		ids = append(ids, e.NodeID)
	}
	w := browse(t, b.Rig)
	w.sees("No upgrade now:") // of the node whose upgrades are disabled,
	w.sees("enabled = true")  // and what to do
	w.fits(390)
	w.picture("nodes")
	w.open("/admin/groups")
	w.fill("input[name=name]", "devices")
	w.click("form.bar button.primary")
	w.sees("No nodes are in this group")
	for _, id := range ids {
		w.open("/admin/nodes/" + id)
		w.holds(`(() => { const s = document.querySelector("[name=group_id]"); s.value = s.options[s.options.length-1].value; return true; })()`)
		w.click("form.bar button")
		w.holds(`document.querySelector("#live dl").innerText.includes("devices")`)
	}
	begin := func(version, strategy string) {
		t.Helper()
		w.open("/admin/groups")
		w.click("tbody a[id]")
		w.click("#upgrade-group")
		w.fill("input[name=version]", version)
		w.fill("input[name=settle_secs]", "1")
		w.click("input[value=" + strategy + "]")
		w.click("form.stack button.primary")
		w.sees("Upgrades 3 nodes")
		w.sees("The node offers no upgrades") // the one that is left out
		w.click("#confirm")
		w.sees("Rollout to " + version)
	}
	begin("1.1.0", "staged")
	w.sees("3 of 3 finished: 3 updated.")
	w.sees("completed")
	begin("1.2.0", "staged")
	w.sees("1 node rolled back in wave 1 of 3")
	w.sees("1 rolled back. 2 waiting.") // the remaining waves do not run
	w.confirm("#abort", "it does not start")
	w.sees("Roll back the group")
	b.publish("1.2.0", "") // fixed
	begin("1.2.0", "immediate")
	w.sees("3 of 3 finished: 3 updated.")
	w.open("/admin/events?category=upgrade")
	w.sees("upgrade_rolled_back")
	w.open("/admin/audit")
	for _, action := range []string{"group.upgrade.schedule", "group.upgrade.paused", "group.upgrade.complete"} {
		w.sees(action)
	}
}

// An operator upgrades a group of simulated nodes: the plan, the waves, the pause at a
// failure, and the actions after it.
func TestBrowserRollsOutAGroup(t *testing.T) {
	t.Parallel()
	box.Slow(t)
	r := newRig(t)
	w := browse(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	bad := make(chan struct{})
	_, token, _ := r.Registration()
	f, err := fleet.Start(ctx, fleet.Config{URL: "wss" + strings.TrimPrefix(r.URL, "https") + wire.Path, Token: token, TLS: r.ClientTLS(), Nodes: 10, Step: 300 * time.Millisecond,
		Outcome: func(_ int, version string) fleet.Outcome {
			select {
			case <-bad:
				return fleet.Completes
			default:
				if version == "1.2.0" {
					return fleet.RollsBack
				}
				return fleet.Completes
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); f.Wait() })

	w.follow("/admin/groups")
	w.fill("input[name=name]", "site one")
	w.click("form.bar button.primary")
	w.sees("No nodes are in this group")
	at, err := chromedp.Run(w.ctx, chromedp.Location())
	if err != nil {
		t.Fatal(err)
	}
	groupID := at[strings.LastIndexByte(at, '/')+1:]
	var nodes []api.Node
	for len(nodes) < 10 || len(nodes[9].Capabilities) == 0 {
		if nodes, err = r.Client.AllNodes(t.Context(), api.NodeQuery{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		if err := r.Client.SetGroup(t.Context(), n.ID, groupID); err != nil {
			t.Fatal(err)
		}
	}

	begin := func(version string) {
		t.Helper()
		w.open("/admin/groups/" + groupID)
		w.click("#upgrade-group")
		w.fill("input[name=version]", version)
		settle := "1"
		if version == "1.3.0" { // it is aborted, and must not have ended before
			settle = "60"
		}
		w.fill("input[name=settle_secs]", settle)
		if version == "1.1.0" {
			w.accessible()
			w.picture("group-upgrade")
		}
		w.click("form.stack button.primary")
		w.sees("Upgrades 10 nodes")
		w.sees("in 3 waves")
		if version == "1.1.0" {
			w.accessible()
			w.picture("group-plan")
		}
		w.click("#confirm")
		w.sees("Rollout to " + version)
	}
	begin("1.1.0")
	w.sees("settling")
	w.picture("rollout")
	w.do("focus", chromedp.Focus(chromedp.CSS("#abort")))
	w.holds(`(window.abort = document.activeElement).id === "abort"`)
	w.sees("5 of 10 finished")                         // nobody loads the page again,
	w.holds(`document.activeElement === window.abort`) // and what has the focus is not replaced
	w.sees("10 of 10 finished")
	w.sees("completed")

	begin("1.2.0")
	w.sees("1 node rolled back in wave 1 of 3")
	w.sees("upgrade_rolled_back")
	w.sees("did not become healthy")
	w.accessible()
	w.fits(1100)
	w.fits(320)
	w.picture("rollout-paused")
	close(bad)
	w.click("#retry")
	w.sees("attempt 2")
	w.sees("completed")

	begin("1.3.0")
	w.click("#pause")
	w.sees("paused by root")
	w.click("#resume")
	w.holds(`document.getElementById("pause") !== null`)
	w.click("#abort")
	w.holds(`document.querySelector("dialog")?.open === true`)
	w.accessible()
	w.picture("rollout-abort")
	w.click("dialog .cancel")
	w.holds(`document.querySelector("dialog") === null`)
	w.confirm("#abort", "enough of it")
	w.sees("Roll back the group")
	w.sees("aborted")
	w.accessible()
	w.click("#roll-back") // the plan is for the version that most nodes ran before
	w.sees("Roll back group site one")
	w.holds(`document.querySelector("[name=version]").value === "1.2.0" && document.querySelector("[value=immediate]").checked`)
	for _, path := range []string{"/admin/groups", "/admin/rollouts"} {
		w.open(path)
		w.accessible()
		w.fits(1100)
		w.fits(320)
		w.picture(strings.TrimPrefix(path, "/admin/"))
	}
	w.open("/admin/groups/" + groupID)
	w.sees("aborted")
	w.accessible()
	w.fits(1100)
	w.fits(320)
	w.picture("group")
	w.open("/admin/nodes")
	w.sees("10 of 10 nodes")

	// The page shows that the manager is unreachable, and when it is back.
	w.open("/admin/nodes")
	w.holds(`document.getElementById("link").hidden === true`)
	if err := r.RestartManager(); err != nil {
		t.Fatal(err)
	}
	w.holds(`document.getElementById("link").hidden === true`)

	// Without JavaScript's help, by the keyboard alone: the first stop is the
	// way past the menu.
	w.open("/admin/groups")
	w.do("Tab", chromedp.KeyEvent("\t"))
	w.holds(`document.activeElement.classList.contains("skip")`)
	w.click("header button") // sign out
	w.sees("Sign in")
	w.accessible()
	w.fits(320)
	w.picture("sign-in")
	w.open("/admin/nodes")
	w.sees("Sign in")
}
