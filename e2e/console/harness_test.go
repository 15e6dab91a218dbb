// Package console drives the web console in a real Chromium: every page at two
// widths under axe-core, by keyboard alone, without script, and under attack.
package console

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dspgate/dspgate/control/controltest"
)

// Widths: a desk and a narrow phone.
const (
	desk  = 1280
	phone = 360
)

// patience is for a machine that is busy with other things.
const patience = 9 * time.Minute

// chromium starts one browser for a test.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path := os.Getenv("DSPGATE_CHROMIUM")
	if path == "" {
		var err error
		if path, err = exec.LookPath("chromium"); err != nil {
			t.Fatal("no chromium on the PATH; run make test-tools once, or set DSPGATE_CHROMIUM")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(patience))
	ctx, cancel = chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal("chromium: ", err)
	}
	return ctx
}

// tab is one window, with a cookie jar of its own, that notes what goes wrong in it.
type tab struct {
	context.Context
	t *testing.T
	w *controltest.World

	mu    sync.Mutex
	wrong []string
}

func open(t *testing.T, browser context.Context, w *controltest.World) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	b := &tab{Context: ctx, t: t, w: w}
	err := chromedp.Listen(ctx, func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			b.note("exception: " + e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError && !strings.Contains(e.Entry.Text, "status of 4") { // pages that refuse are no fault
				b.note(e.Entry.Text + " " + e.Entry.URL)
			}
		case *page.EventJavascriptDialogOpening:
			b.note("dialog: " + e.Message)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) note(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, what)
}

// faults are the exceptions, dialogs and broken policies so far.
func (b *tab) faults() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.wrong...)
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// get runs one action that returns a value.
func get[T any](b *tab, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b, a)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func (b *tab) width(px int64) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(px, 900))
}

func (b *tab) visit(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.w.URL+path), chromedp.WaitReady(chromedp.CSS("main, body")))
}

// sees waits until a text is on the page.
func (b *tab) sees(text string) {
	b.t.Helper()
	body := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		// A page that is just being left has no body.
		if s, err := chromedp.Run(b, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`)); err == nil {
			if body = s; strings.Contains(body, text) {
				return
			}
		} else if b.Err() != nil {
			break
		}
	}
	b.t.Fatalf("never saw %q on:\n%s", text, body)
}

// signIn walks through the provider's page.
func (b *tab) signIn(email string) {
	b.t.Helper()
	b.visit("/sign-in")
	b.do(chromedp.WaitVisible(chromedp.CSS("#email")), chromedp.SendKeys(chromedp.CSS("#email"), email), chromedp.SendKeys(chromedp.CSS("#password"), controltest.Password), chromedp.Click(chromedp.CSS("button[type=submit]")))
	b.sees("Sign out")
}

// axe is axe-core's source, from .tools.
func axe(t *testing.T) string {
	t.Helper()
	for _, path := range []string{os.Getenv("DSPGATE_AXE"), filepath.Join("..", "..", ".tools", "axe.min.js")} {
		if b, err := os.ReadFile(path); err == nil {
			return string(b)
		}
	}
	t.Fatal("no axe.min.js: run make test-tools once, or set DSPGATE_AXE")
	return ""
}

// scheme makes the reader one who asks for light or dark pages, and for nothing that
// moves: colours on their way from one to the other are neither.
func (b *tab) scheme(light string) {
	b.t.Helper()
	_, err := chromedp.Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: light}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// darkViolations are what axe-core finds of the page's colours in the dark.
func (b *tab) darkViolations(source string) []string {
	b.t.Helper()
	b.scheme("dark")
	defer b.scheme("light")
	const ground = `getComputedStyle(document.documentElement).backgroundColor`
	if got := get(b, chromedp.Evaluate[string](ground)); got != "rgb(15, 22, 32)" {
		return []string{"the page is not dark but " + got}
	}
	return b.found(source, `["color-contrast"]`)
}

// violations runs axe-core on the page as it is.
func (b *tab) violations(source string) []string {
	b.t.Helper()
	return b.found(source, `["wcag2a","wcag2aa","wcag21a","wcag21aa","wcag22aa","best-practice"]`)
}

func (b *tab) found(source, rules string) []string {
	b.t.Helper()
	if !get(b, chromedp.Evaluate[bool]("!!window.axe")) { // not twice on one page
		get(b, chromedp.Evaluate[int](source+"; 0"))
	}
	out := get(b, chromedp.Evaluate[string](`axe.run(document, {runOnly: `+rules+`})
		.then(r => JSON.stringify(r.violations.map(v => v.id + ": " + v.help + " at " + v.nodes.map(n => n.html.slice(0, 160)).join(" | "))))`, chromedp.EvalAwaitPromise))
	var all []string
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		b.t.Fatal(err)
	}
	return all
}

// overflows tells what sticks out to the right.
func (b *tab) overflows() string {
	b.t.Helper()
	return get(b, chromedp.Evaluate[string](`(() => { const w = document.documentElement.clientWidth; if (document.documentElement.scrollWidth <= w) return "";
		return [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > w + 1).slice(0, 3).map(e => e.outerHTML.slice(0, 120)).join(" | ") || "something"; })()`))
}

// shoot keeps a picture for people to look at, when DSPGATE_SHOTS names a folder.
func (b *tab) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("DSPGATE_SHOTS")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), get(b, chromedp.FullScreenshot(100)), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// press sends keys to whatever has the focus.
func (b *tab) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.do(chromedp.KeyEvent(k))
	}
}

// tabTo presses Tab until the focus is on what matches, as a person does who
// looks where it is.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	for range 80 {
		if get(b, chromedp.Evaluate[bool](fmt.Sprintf("document.activeElement.matches(%q)", selector))) {
			if !get(b, chromedp.Evaluate[bool](`(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2; })()`)) {
				b.t.Errorf("the focus on %s cannot be seen", selector)
			}
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("Tab never reaches %s", selector)
}
