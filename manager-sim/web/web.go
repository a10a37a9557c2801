// Package web is the manager's pages. They work without JavaScript, by plain
// forms; with it they keep themselves up to date.
//
// A page is a client of the REST API, called in this process as the person who
// is signed in: so there is nothing that a page can do and the API cannot, and
// who may do what is decided in one place. The package keeps nothing but what
// is in the session's cookie.
package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

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
	cookieName = "__Host-session"
	maxForm    = 64 << 10
)

// Web is the pages of one manager. It is an http.Handler for all that the API
// does not serve.
type Web struct {
	manager *server.Server
	log     zerolog.Logger
	pages   map[string]*template.Template
	mux     *http.ServeMux
	guard   *http.CrossOriginProtection
}

// New returns the pages of a manager.
func New(m *server.Server, log zerolog.Logger) (*Web, error) {
	w := &Web{manager: m, log: log, pages: map[string]*template.Template{}, mux: http.NewServeMux(), guard: http.NewCrossOriginProtection()}
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
	for pattern, h := range map[string]func(*request) error{
		"POST /admin/sign-out":            (*request).signOut,
		"GET /admin/stream":               (*request).stream,
		"GET /admin/nodes":                (*request).nodes,
		"GET /admin/nodes/{id}":           (*request).node,
		"GET /admin/nodes/{id}/upgrade":   (*request).upgradeNodePage,
		"POST /admin/nodes/{id}/upgrade":  (*request).upgradeNode,
		"POST /admin/nodes/{id}/group":    (*request).setGroup,
		"GET /admin/groups":               (*request).groups,
		"POST /admin/groups":              (*request).addGroup,
		"GET /admin/groups/{id}":          (*request).group,
		"GET /admin/groups/{id}/upgrade":  (*request).upgradeGroupPage,
		"POST /admin/groups/{id}/upgrade": (*request).upgradeGroup,
		"GET /admin/rollouts":             (*request).rollouts,
		"GET /admin/rollouts/{id}":        (*request).rollout,
		"POST /admin/rollouts/{id}/{act}": (*request).actOnRollout,
		"GET /admin/events":               (*request).events,
		"GET /admin/audit":                (*request).audit,
		"GET /admin/users":                (*request).users,
		"POST /admin/users":               (*request).addUser,
		"POST /admin/users/{name}/remove": (*request).removeUser,
		"GET /admin/": func(*request) error {
			return &apiError{http.StatusNotFound, "There is no such page."}
		},
	} {
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
	return server.Bounded(mux), nil
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
	// A form of another site must not act for somebody who is signed in here.
	if err := w.guard.Check(r); err != nil {
		w.fail(rw, server.Identity{}, http.StatusForbidden, "The request came from another site.")
		return
	}
	r.Body = http.MaxBytesReader(rw, r.Body, maxForm)
	w.mux.ServeHTTP(rw, r)
}

// request is one request of somebody who is signed in.
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
			err = h(&request{r, w, rw, i})
		}
		var api *apiError
		switch {
		case err == nil:
		case errors.As(err, &api):
			w.fail(rw, i, api.status, api.text)
		default:
			w.log.Error().Err(err).Str("path", r.URL.Path).Msg("page")
			w.fail(rw, i, http.StatusInternalServerError, "Something failed here; see the manager's log.")
		}
	}
}

// apiError is an answer of the API that is not the one hoped for.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

// answer collects what the API answers.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// api calls the API as whoever is signed in, and decodes its answer into to,
// unless that is nil.
func (r *request) api(method, path string, body, to any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(server.As(r.Context(), r.who), method, path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	a := &answer{header: http.Header{}, status: http.StatusOK}
	r.web.manager.ServeHTTP(a, req)
	if a.status >= 300 {
		var problem server.Problem
		if json.Unmarshal(a.body.Bytes(), &problem) != nil || problem.Detail == "" {
			problem.Detail = http.StatusText(a.status)
		}
		return &apiError{a.status, problem.Detail}
	}
	if to == nil {
		return nil
	}
	return json.Unmarshal(a.body.Bytes(), to)
}

// all goes through the pages of a list of the API, and returns its entries.
func all[T any](r *request, path, field string) ([]T, error) {
	q := url.Values{"limit": {"1000"}}
	list := []T{}
	for {
		var page map[string]json.RawMessage
		if err := r.api(http.MethodGet, path+"?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		var some []T
		var next string
		if err := json.Unmarshal(page[field], &some); err != nil {
			return nil, err
		}
		list = append(list, some...)
		if page["next"] == nil {
			return list, nil
		}
		if err := json.Unmarshal(page["next"], &next); err != nil {
			return nil, err
		}
		q.Set("after", next)
	}
}

// page is what every template gets.
type page struct {
	Title string
	Nav   string // the entry of the menu that it belongs to
	Who   server.Identity
	Live  bool   // it keeps itself up to date
	Error string // what the last form was refused for
	Data  any
}

// MayOperate and the others are for templates.
func (p page) MayOperate() bool { return p.Who.May(server.Operator) }

func (p page) MayAdminGroup() bool { return p.Who.May(server.GroupAdmin) }

func (p page) MayAdminAll() bool { return p.Who.May(server.SuperAdmin) }

func (p page) SignedIn() bool { return p.Who.Name != "" }

func (r *request) show(name, title, nav string, live bool, data any) error {
	return r.web.render(r.rw, http.StatusOK, name, page{Title: title, Nav: nav, Who: r.who, Live: live, Data: data})
}

// refused shows a form again, with why it was refused; another error it returns.
func (r *request) refused(err error, name, title, nav string, data any) error {
	var api *apiError
	if !errors.As(err, &api) || api.status == http.StatusForbidden {
		return err
	}
	return r.web.render(r.rw, api.status, name, page{Title: title, Nav: nav, Who: r.who, Data: data, Error: api.text})
}

// render renders into memory first: a page is whole, or an error.
func (w *Web) render(rw http.ResponseWriter, status int, name string, p page) error {
	var b bytes.Buffer
	if err := w.pages[name].ExecuteTemplate(&b, "layout.html", p); err != nil {
		return err
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.WriteHeader(status)
	_, err := io.Copy(rw, &b)
	if err != nil {
		w.log.Debug().Err(err).Msg("page was not read to its end")
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
	r.web.manager.ServeHTTP(r.rw, req)
	return nil
}
