// Package web is the manager's pages. They work without JavaScript, by plain
// forms; with it they keep themselves up to date.
//
// A page is a client of the REST API and calls it in this process as the person
// who is signed in. So a page can do nothing that the API cannot, and rights are
// checked in one place. The package keeps no state but the session's cookie.
//
// A page shows everything as text: no content needs a pointer that hovers, and
// nothing is cut off at any width (TestLayoutShowsEverything).
package web

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/rs/zerolog"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// policy is the Content-Security-Policy: nothing but our own files, and no
// script or style in a page.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

const (
	somethingFailed = "The manager failed to answer. See its log."
	cookieName      = "__Host-session"
	maxForm         = 64 << 10
)

// Web is the pages of one manager. It is an http.Handler for all that the API
// does not serve.
type Web struct {
	manager *server.Server
	api     http.Handler // of the manager
	log     zerolog.Logger
	pages   map[string]*template.Template
	mux     *http.ServeMux
	guard   *http.CrossOriginProtection
}

// New returns the pages of a manager.
func New(m *server.Server, log zerolog.Logger) (*Web, error) {
	w := &Web{manager: m, api: m, log: log, pages: map[string]*template.Template{}, mux: http.NewServeMux(), guard: http.NewCrossOriginProtection()}
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

// Handler serves the API and the nodes by m, and its pages beside them.
func Handler(m *server.Server, log zerolog.Logger) (http.Handler, error) {
	pages, err := New(m, log)
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
		w.fail(rw, server.Identity{}, http.StatusForbidden, "The request came from another site.")
		return
	}
	r.Body = http.MaxBytesReader(rw, r.Body, maxForm)
	w.mux.ServeHTTP(rw, r)
}

// request is one request of a person who is signed in.
type request struct {
	*http.Request
	web *Web
	rw  http.ResponseWriter
	who server.Identity
}

// signedIn sends everybody else to the sign-in page.
func (w *Web) signedIn(h func(*request) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie(cookieName)
		var i server.Identity
		if err == nil {
			i, err = w.manager.SessionIdentity(r.Context(), c.Value)
		}
		if errors.Is(err, http.ErrNoCookie) || errors.Is(err, store.ErrNotFound) {
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
			err = h(&request{r, w, rw, i})
		}
		var api *apiError
		switch {
		case err == nil:
		case errors.As(err, &api):
			w.fail(rw, i, api.status, api.text)
		case r.Context().Err() != nil:
			w.gone(rw)
		default:
			w.log.Error().Err(err).Str("path", r.URL.Path).Msg("page")
			w.fail(rw, i, http.StatusInternalServerError, somethingFailed)
		}
	}
}

// page is what every template gets.
type page struct {
	Title string
	Nav   string // the entry of the menu that it belongs to
	Who   server.Identity
	Live  bool   // a script keeps it up to date
	Error string // why the last form was refused
	// Notice is what the last form did, or what the operator must know about it.
	Notice string
	Data   any
}

// MayOperate and the others are for templates.
func (p page) MayOperate() bool { return p.Who.May(api.Operator) }

func (p page) MayAdminGroup() bool { return p.Who.May(api.GroupAdmin) }

func (p page) MayAdminAll() bool { return p.Who.May(api.SuperAdmin) }

// SeesAll reports whether no node is hidden from the person.
func (p page) SeesAll() bool { return p.Who.In("") }

func (p page) SignedIn() bool { return p.Who.Name != "" }

func (r *request) show(name, title, nav string, live bool, data any) error {
	return r.web.render(r.rw, http.StatusOK, name, page{Title: title, Nav: nav, Who: r.who, Live: live, Data: data})
}

// notify shows a page after a form was carried out, with what the operator must
// know about it.
func (r *request) notify(notice, name, title, nav string, data any) error {
	return r.web.render(r.rw, http.StatusOK, name, page{Title: title, Nav: nav, Who: r.who, Notice: notice, Data: data})
}

// refused shows a page again, with why the API refused the request. It returns
// every other error, and a lack of rights.
func (r *request) refused(err error, name, title, nav string, data any) error {
	var api *apiError
	if !errors.As(err, &api) || api.status == http.StatusForbidden {
		return err
	}
	return r.web.render(r.rw, api.status, name, page{Title: title, Nav: nav, Who: r.who, Data: data, Error: api.text})
}

// render renders into memory first, so that a page is complete or an error.
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

func (w *Web) fail(rw http.ResponseWriter, i server.Identity, status int, text string) {
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

// stream is the API's, for the page's script.
func (r *request) stream() error {
	req, err := http.NewRequestWithContext(server.As(r.Context(), r.who), http.MethodGet, "/api/v1/events/stream", nil)
	if err != nil {
		return err
	}
	r.web.api.ServeHTTP(r.rw, req)
	return nil
}
