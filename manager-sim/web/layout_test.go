package web_test

import (
	"context"
	_ "embed"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

//go:embed testdata/clipped.js
var clipped string

const (
	// screenshotsEnv names a directory for pictures of every page, width and theme.
	screenshotsEnv = "EDGE_AGENT_LAYOUT_SCREENSHOTS"
)

// widths are those of a monitor, a laptop's window, a phone, and the minimum of WCAG
// 1.4.10.
var widths = []int64{1440, 1100, 390, 320}

// window is a browser that runs no script of the page.
type window struct {
	t   *testing.T
	ctx context.Context
	p   *person
}

func (p *person) window() *window {
	p.t.Helper()
	path, err := exec.LookPath("chromium-headless-shell")
	switch {
	case err == nil:
	case os.Getenv(box.RequireEnv) != "":
		p.t.Fatalf("%v, and %s is set", err, box.RequireEnv)
	default:
		p.t.Skipf("NOT TESTED in a browser: %v", err)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("ignore-certificate-errors", true))
	ctx, cancel := chromedp.NewExecAllocator(p.t.Context(), opts...)
	p.t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	p.t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 4*time.Minute)
	p.t.Cleanup(cancel)
	w := &window{p.t, ctx, p}
	u, err := url.Parse(p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, c := range p.c.Jar.Cookies(u) {
		w.do("sign in", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, network.SetCookie, network.SetCookieParams{Name: c.Name, Value: c.Value, URL: p.url, Path: "/", Secure: new(true)})
			return err
		}))
	}
	return w
}

func (w *window) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	if err := chromedp.Do(w.ctx, steps...); err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

func (w *window) eval(script string) string {
	w.t.Helper()
	v, err := chromedp.Run(w.ctx, chromedp.Evaluate[string](script))
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// loaded waits until a page that answers a form has an element, and has its style sheet, too.
func (w *window) loaded(selector string) {
	w.t.Helper()
	script := fmt.Sprintf(`document.readyState === "complete" && document.querySelector(%q) !== null`, selector)
	for {
		ok, err := chromedp.Run(w.ctx, chromedp.Evaluate[bool](script))
		if err == nil && ok {
			return
		}
		select {
		case <-w.ctx.Done():
			w.t.Fatalf("the page never had %s: %v", selector, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Every page shows all of its text at every width, without hovering.
func TestLayoutShowsEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser")
	}
	t.Parallel()
	f, p := overFake(t)
	nodes := f.full()
	w := p.window()
	pages := map[string]string{
		"nodes": "/admin/nodes", "nodes-empty": "/admin/nodes?q=nothing", "node": "/admin/nodes/" + longID, "node-changed": "/admin/nodes/changed-1", "node-removed": "/admin/nodes/removed-1",
		"upgrade": "/admin/nodes/changed-1/upgrade", "upgrade-not-now": "/admin/nodes/staging-1/upgrade", "node-remove": "/admin/nodes/" + longID + "/remove",
		"groups": "/admin/groups", "group": "/admin/groups/g1", "group-upgrade": "/admin/groups/g1/upgrade", "group-rollback": "/admin/groups/g1/upgrade?rollback=yes&version=1.1.0",
		"rollouts": "/admin/rollouts", "rollout": "/admin/rollouts/r1", "rollout-ended": "/admin/rollouts/" + longID, "rollout-abort": "/admin/rollouts/r1/abort",
		"events": "/admin/events", "audit": "/admin/audit", "users": "/admin/users", "user": "/admin/users/alice", "user-remove": "/admin/users/alice/remove",
		"tokens": "/admin/tokens", "token-revoke": "/admin/tokens/t1/revoke", "password": "/admin/password", "error": "/admin/nowhere", "sign-in": "/admin/sign-in", "claim": "/admin/claim",
	}
	check := func(name string) {
		t.Helper()
		for _, width := range widths {
			w.do("size", chromedp.EmulateViewport(width, 900))
			if bad := w.eval(clipped); bad != "" {
				t.Errorf("%s at %d px:\n%s", name, width, bad)
			}
			if width == 1100 || width == 390 {
				w.accessible(name, width)
			}
			w.picture(name, width)
		}
	}
	for name, path := range pages {
		w.do("open "+path, chromedp.Navigate(p.url+path))
		check(name)
	}
	// Pages that answer a form.
	for name, form := range map[string][3]string{
		"group-plan": {"/admin/groups/g1/upgrade", "form.stack button.primary", "#confirm"},
		"token-new":  {"/admin/tokens", "#create-token", "#secret"},
	} {
		w.do("open "+form[0], chromedp.Navigate(p.url+form[0]))
		w.eval(`(() => { for (const i of document.querySelectorAll("form.stack input[name=name]")) i.value = "ci"; return ""; })()`)
		w.do("submit", chromedp.Click(chromedp.CSS(form[1])))
		w.loaded(form[2])
		check(name)
	}
	// Each failure is text: the node's message, the code, its meaning and its remedy.
	for _, path := range []string{"/admin/nodes", "/admin/groups/g1", "/admin/rollouts/r1"} {
		w.do("open "+path, chromedp.Navigate(p.url+path))
		for _, width := range widths {
			w.do("size", chromedp.EmulateViewport(width, 900))
			text := w.eval("document.body.innerText")
			for _, n := range nodes {
				if n["error_code"] == nil {
					continue
				}
				code := fmt.Sprint(n["error_code"])
				meaning, remedy := web.Meaning(code)
				for _, want := range []string{code, meaning, remedy} {
					if !strings.Contains(text, want) {
						t.Errorf("%s at %d px does not show %q of %s", path, width, want, code)
					}
				}
			}
		}
	}
	// The actions of a node are visible at the width of a phone.
	w.do("open", chromedp.EmulateViewport(390, 900), chromedp.Navigate(p.url+"/admin/nodes"))
	if missing := w.eval(`[...document.querySelectorAll("a[data-dialog]")].filter((a) => { const b = a.getBoundingClientRect(); return !a.checkVisibility() || b.left < 0 || b.right > innerWidth; }).map((a) => a.id).join(" ")`); missing != "" {
		t.Errorf("actions outside the page: %s", missing)
	}
}

// accessible checks the page with axe-core in both themes: WCAG 2.2 AA.
func (w *window) accessible(name string, width int64) {
	w.t.Helper()
	axe, err := os.ReadFile("../../internal/rig/testdata/axe-core/axe.min.js")
	if err != nil {
		w.t.Fatal(err)
	}
	const script = `axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] })
		.then((r) => r.violations.map((v) => v.id + ": " + v.help + "\n" + v.nodes.map((n) => "  " + n.html.slice(0, 200) + " " + n.failureSummary).join("\n")).join("\n"))`
	w.eval(string(axe) + ";axe.version")
	for _, theme := range []string{"light", "dark"} {
		w.theme(theme)
		bad, err := chromedp.Run(w.ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
		if err != nil || bad != "" {
			w.t.Errorf("%s at %d px, %s: %s %v", name, width, theme, bad, err)
		}
	}
}

func (w *window) theme(name string) {
	w.t.Helper()
	w.do("theme", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
		return err
	}))
}

// picture saves a picture of the whole page in both themes, if that is enabled.
func (w *window) picture(name string, width int64) {
	w.t.Helper()
	dir := os.Getenv(screenshotsEnv)
	if dir == "" {
		return
	}
	for _, theme := range []string{"light", "dark"} {
		w.theme(theme)
		png, err := chromedp.Run(w.ctx, chromedp.FullScreenshot(100))
		if err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, width, theme)), png, 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
}
