package rig_test

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// screenshotsEnv names a directory for pictures of the pages in both themes, such as
// docs/img.
const screenshotsEnv = "EDGE_AGENT_SCREENSHOTS"

// browser is a real browser that is signed in at a manager.
type browser struct {
	t   *testing.T
	ctx context.Context
	url string
}

// browse starts a browser, and creates the manager's first administrator.
func browse(t *testing.T, r *rig.Rig) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium-headless-shell")
	switch {
	case err == nil:
	case os.Getenv(box.RequireEnv) != "":
		t.Fatalf("%v, and %s is set", err, box.RequireEnv)
	default:
		t.Skipf("NOT TESTED in a browser: %v", err)
	}
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Its children may write for an instant after it ended.
		for range 50 {
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("%s stays", dir)
	})
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(dir),
		chromedp.Flag("ignore-certificate-errors", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as this context
		t.Fatal(err)
	}
	b := &browser{t, patienceOf(ctx, t), r.URL}
	t.Cleanup(func() {
		if t.Failed() {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
			t.Logf("the page was:\n%s", text)
		}
	})
	claim, err := r.Manager.Users.NewClaim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.open("/admin/claim?token=" + claim)
	b.accessible()
	b.picture("claim")
	b.fill("input[name=name]", "root")
	b.fill("input[name=password]", "correct horse battery")
	b.click("form button.primary")
	b.sees("Managed nodes")
	return b
}

// confirm fills in the dialog that confirms an action.
func (b *browser) confirm(opener, reason string) {
	b.t.Helper()
	b.click(opener)
	b.holds(`document.querySelector("dialog")?.open === true`)
	b.fill("dialog textarea[name=reason]", reason)
	b.click("dialog button.danger")
}

func (b *browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func (b *browser) open(path string) { b.t.Helper(); b.do("open "+path, chromedp.Navigate(b.url+path)) }

// click clicks an element. It searches again if a new page replaced the element
// meanwhile.
func (b *browser) click(selector string) {
	b.t.Helper()
	for {
		err := chromedp.Do(b.ctx, chromedp.Click(chromedp.CSS(selector)))
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "Could not find node") {
			b.t.Fatalf("click %s: %v", selector, err)
		}
	}
}

// follow clicks the link to a path in the navigation until the browser is there: a page that
// renews itself between the press and the release of the button loses a click.
func (b *browser) follow(path string) {
	b.t.Helper()
	there := fmt.Sprintf(`location.pathname === %q && document.readyState === "complete"`, path)
	for tries := 0; ; tries++ {
		if tries%40 == 0 {
			b.click(fmt.Sprintf("nav a[href=%q]", path))
		}
		if ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](there)); err == nil && ok {
			return
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("the browser did not follow the link to %s", path)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (b *browser) fill(selector, v string) {
	b.t.Helper()
	b.do("wait for "+selector, chromedp.WaitVisible(chromedp.CSS(selector)))
	b.holds(fmt.Sprintf(`(document.querySelector(%q).value = "") === ""`, selector))
	b.do("fill "+selector, chromedp.SendKeys(chromedp.CSS(selector), v))
}

// sees waits until the page shows a text, without loading the page again.
func (b *browser) sees(text string) {
	b.t.Helper()
	b.holds(fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// holds waits until an expression of the page is true.
func (b *browser) holds(expression string) {
	b.t.Helper()
	for {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && ok {
			return
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("the page never had %s (%v)", expression, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// picture saves pictures of a page at the width of a laptop's window, if screenshotsEnv
// is set.
func (b *browser) picture(name string) {
	b.t.Helper()
	b.pictureAt(name, 1100, 700)
}

func (b *browser) pictureAt(name string, width, height int64) {
	b.t.Helper()
	dir := os.Getenv(screenshotsEnv)
	if dir == "" {
		return
	}
	for _, theme := range []string{"light", "dark"} {
		b.do("size", chromedp.EmulateViewport(width, height))
		b.theme(theme)
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+"-"+theme+".png"), png, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *browser) theme(name string) {
	b.t.Helper()
	b.do("theme", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
		return err
	}))
}

// fits checks that all text of the page is visible at a width (see clipped.js of
// package web), and that every control has a name.
func (b *browser) fits(width int64) {
	b.t.Helper()
	b.do("viewport", chromedp.EmulateViewport(width, 700))
	clipped, err := os.ReadFile("../../manager-sim/web/testdata/clipped.js")
	if err != nil {
		b.t.Fatal(err)
	}
	script := `(() => {
		const bad = [` + strings.TrimSpace(string(clipped)) + `].filter((s) => s);
		for (const e of document.querySelectorAll("a, button, input, select, textarea, [role=img]")) {
			if (e.type === "hidden") continue;
			const name = e.getAttribute("aria-label") || e.labels?.[0]?.innerText || e.innerText;
			if (!name?.trim()) bad.push("no name: " + e.outerHTML.slice(0, 120));
		}
		const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
		if (new Set(ids).size !== ids.length) bad.push("an id twice");
		if (document.querySelectorAll("h1").length !== 1) bad.push("not one h1");
		return bad.join("\n");
	})()`
	bad, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](script))
	if err != nil || bad != "" {
		at, _ := chromedp.Run(b.ctx, chromedp.Location())
		b.t.Errorf("%s at %d px: %s %v", at, width, bad, err)
	}
}

//go:embed testdata/axe-core/axe.min.js
var axe string

// accessible checks the page with axe-core in both themes: WCAG 2.2 AA and best practices.
func (b *browser) accessible() {
	b.t.Helper()
	const script = `axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] })
		.then((r) => r.violations.map((v) => v.id + ": " + v.help + "\n" + v.nodes.map((n) => "  " + n.html.slice(0, 200) + " " + n.failureSummary).join("\n")).join("\n"))`
	b.do("axe-core", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Evaluate[string](axe+";axe.version")(ctx, t)
		return err
	}))
	for _, theme := range []string{"light", "dark"} {
		b.theme(theme)
		bad, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
		if err != nil || bad != "" {
			at, _ := chromedp.Run(b.ctx, chromedp.Location())
			b.t.Errorf("%s, %s: %s %v", at, theme, bad, err)
		}
	}
	b.theme("light")
}
