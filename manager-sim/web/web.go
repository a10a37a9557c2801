// Package web serves the manager's pages. They are plain forms that work without
// JavaScript; a script keeps them up to date.
//
// A page is a client of the REST API. It calls the API in this process as the person who
// is signed in. So a page can do only what the API can do, and rights are checked in one
// place. The package keeps no state except the session's cookie.
//
// A page shows everything as text: no content needs a hovering pointer, and no width
// cuts content off (TestLayoutShowsEverything).
package web

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/rs/zerolog"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// policy is the Content-Security-Policy: only our own files, and no script or style in
// a page.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

const (
	somethingFailed = "The manager failed to answer. See its log."
	databaseFailed  = "The database of the manager cannot be used now. Nothing was changed. Try again later."
	cookieName      = "__Host-session"
	maxForm         = 64 << 10
)

// Web serves the pages of one manager.
type Web struct {
	people  People
	handler http.Handler // of the API
	api     *api.Client  // calls handler
	log     zerolog.Logger
	pages   map[string]*template.Template
	mux     *http.ServeMux
	guard   *http.CrossOriginProtection
}

// People signs people in and out. Its methods are those of identity.Service.
type People interface {
	SignIn(ctx context.Context, source, name, password string) (sessionSecret string, err error)
	SessionIdentity(ctx context.Context, sessionSecret string) (identity.Identity, error)
	SignOut(ctx context.Context, sessionSecret string, i identity.Identity) error
	ClaimOpen(ctx context.Context) (bool, error)
	Claim(ctx context.Context, claimSecret, name, password string) error
}

// Manager is a manager whose pages are served. It is the handler of its own API, such as
// a *server.Server.
type Manager interface {
	http.Handler
	// Bounded limits the requests of h as those of the API.
	Bounded(h http.Handler) http.Handler
}

// New returns the pages of the people of an API.
func New(handler http.Handler, people People, log zerolog.Logger) (*Web, error) {
	w := &Web{people: people, handler: handler, api: newClient(handler), log: log, pages: map[string]*template.Template{}, mux: http.NewServeMux(), guard: http.NewCrossOriginProtection()}
	base, err := template.New("").Funcs(functions).ParseFS(pageFiles, "pages/layout.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(pageFiles, "pages/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		t, err := base.Clone()
		if err != nil {
			return nil, err
		}
		if t, err = t.ParseFS(pageFiles, name); err != nil {
			return nil, err
		}
		w.pages[strings.TrimSuffix(strings.TrimPrefix(name, "pages/"), ".html")] = t
	}
	assets, err := fs.Sub(assetFiles, "assets")
	if err != nil {
		return nil, err
	}
	w.mux.Handle("GET /assets/", http.StripPrefix("/assets/", http.FileServerFS(assets)))
	w.mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "/admin/nodes", http.StatusSeeOther)
	})
	w.mux.HandleFunc("GET /admin/sign-in", w.signInPage)
	w.mux.HandleFunc("POST /admin/sign-in", w.signIn)
	w.mux.HandleFunc("GET /admin/claim", w.claimPage)
	w.mux.HandleFunc("POST /admin/claim", w.claim)
	for pattern, h := range routes {
		w.mux.HandleFunc(pattern, w.signedIn(h))
	}
	return w, nil
}

// Handler serves the API and the nodes with m, and the pages, where people signs users in.
func Handler(m Manager, people People, log zerolog.Logger) (http.Handler, error) {
	pages, err := New(m, people, log)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", m)
	for _, path := range []string{"/{$}", "/admin/", "/assets/"} {
		mux.Handle(path, pages)
	}
	return m.Bounded(mux), nil
}

// ServeHTTP serves a page.
func (w *Web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	if !strings.HasPrefix(r.URL.Path, "/assets/") {
		h.Set("Cache-Control", "no-store")
	}
	// A form of another site must not act for a person who is signed in here.
	if err := w.guard.Check(r); err != nil {
		w.fail(rw, identity.Identity{}, http.StatusForbidden, "The request came from another site.")
		return
	}
	most := int64(maxForm)
	if strings.HasSuffix(r.URL.Path, "/commands") { // a form writes some characters as three
		most = 4 * api.MaxParams
	}
	r.Body = http.MaxBytesReader(rw, r.Body, most)
	w.mux.ServeHTTP(rw, r)
}

// request is one request of a person who is signed in.
type request struct {
	*http.Request // its context has the identity of who
	api           *api.Client
	web           *Web
	rw            http.ResponseWriter
	who           identity.Identity
}

// signedIn serves a page to people who are signed in, and redirects others to the sign-in
// page.
func (w *Web) signedIn(h func(*request) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie(cookieName)
		var i identity.Identity
		if err == nil {
			i, err = w.people.SessionIdentity(r.Context(), c.Value)
		}
		if errors.Is(err, http.ErrNoCookie) || errors.Is(err, identity.ErrNoSession) {
			to := "/admin/sign-in"
			if r.Method == http.MethodGet {
				to += "?next=" + url.QueryEscape(r.URL.RequestURI())
			}
			http.Redirect(rw, r, to, http.StatusSeeOther)
			return
		}
		if err == nil {
			err = readForm(r)
		}
		if err == nil {
			err = h(&request{r.WithContext(countUnreadable(identity.As(r.Context(), i))), w.api, w, rw, i})
		}
		refusal, refused := refusalOf(err)
		switch {
		case err == nil:
		case refused:
			if refusal.RetryAfter > 0 {
				rw.Header().Set("Retry-After", strconv.Itoa(int(refusal.RetryAfter.Seconds())))
			}
			w.fail(rw, i, refusal.Status, refusal.Detail)
		case r.Context().Err() != nil:
			w.failAborted(rw)
		default:
			w.failed(rw, i, err, "page "+r.URL.Path)
		}
	}
}

// failed answers an error that is no refusal: the manager's database cannot be used now, or
// the manager has a defect.
func (w *Web) failed(rw http.ResponseWriter, i identity.Identity, err error, what string) {
	if identity.Unavailable(err) {
		w.log.Warn().Err(err).Msg(what)
		rw.Header().Set("Retry-After", "5")
		w.fail(rw, i, http.StatusServiceUnavailable, databaseFailed)
		return
	}
	w.log.Error().Err(err).Msg(what)
	w.fail(rw, i, http.StatusInternalServerError, somethingFailed)
}

// page is the data of every template.
type page struct {
	Title string
	Nav   string // its entry of the menu
	Who   identity.Identity
	Live  bool   // a script keeps it up to date
	Error string // why the last form was refused
	// Notice reports what the last form did, or what the operator must know about it.
	Notice string
	// Unreadable is how many entries the lists on the page leave out.
	Unreadable int
	Data       any
}

// MayOperate reports whether the person may upgrade a node.
func (p page) MayOperate() bool { return p.Who.May(api.Operator) }

// MayAdminGroup reports whether the person may manage a group.
func (p page) MayAdminGroup() bool { return p.Who.May(api.GroupAdmin) }

// MayAdminAll reports whether the person may manage everything.
func (p page) MayAdminAll() bool { return p.Who.May(api.SuperAdmin) }

// SeesAll reports whether the person sees every node.
func (p page) SeesAll() bool { return p.Who.In("") }

// SignedIn reports whether a person is signed in.
func (p page) SignedIn() bool { return p.Who.Name != "" }

func (r *request) show(name, title, nav string, live bool, data any) error {
	return r.web.render(r.rw, http.StatusOK, name, page{Title: title, Nav: nav, Who: r.who, Unreadable: unreadableOf(r.Context()), Live: live, Data: data})
}

// notify shows a page after a successful form, with a notice about it.
func (r *request) notify(notice, name, title, nav string, data any) error {
	return r.web.render(r.rw, http.StatusOK, name, page{Title: title, Nav: nav, Who: r.who, Unreadable: unreadableOf(r.Context()), Notice: notice, Data: data})
}

// refused shows a page again with the refusal in err. It returns err if that is no
// refusal, or a lack of rights.
func (r *request) refused(err error, name, title, nav string, data any) error {
	refusal, ok := refusalOf(err)
	if !ok || refusal.Status == http.StatusForbidden {
		return err
	}
	return r.web.render(r.rw, refusal.Status, name, page{Title: title, Nav: nav, Who: r.who, Unreadable: unreadableOf(r.Context()), Data: data, Error: refusal.Detail})
}

// render renders a page in memory first, so that the answer is complete or an error.
func (w *Web) render(rw http.ResponseWriter, status int, name string, p page) error {
	var b bytes.Buffer
	if err := w.pages[name].ExecuteTemplate(&b, "layout.html", p); err != nil {
		return err
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.WriteHeader(status)
	_, err := io.Copy(rw, &b)
	if err != nil {
		w.log.Debug().Err(err).Msg("browser closed the connection before the end of a page")
	}
	return nil
}

func (w *Web) fail(rw http.ResponseWriter, i identity.Identity, status int, text string) {
	err := w.render(rw, status, "error", page{Title: http.StatusText(status), Who: i, Data: text})
	if err != nil {
		w.log.Error().Err(err).Msg("error page")
		http.Error(rw, text, status)
	}
}

func (r *request) to(format string, args ...any) error {
	http.Redirect(r.rw, r.Request, fmt.Sprintf(format, args...), http.StatusSeeOther)
	return nil
}

// stream serves the API's event stream to the page's script.
func (r *request) stream() error {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "/api/v1/events/stream", nil)
	if err != nil {
		return err
	}
	r.web.handler.ServeHTTP(r.rw, req)
	return nil
}
