package web

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server"
)

func source(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// local returns the page that a sign-in opens: next if that is a page of this
// manager, otherwise the nodes.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(u.Path, "/admin/") || path.Clean(u.Path) != u.Path || strings.HasPrefix(next, "//") {
		return "/admin/nodes"
	}
	return u.RequestURI()
}

func (w *Web) signInPage(rw http.ResponseWriter, r *http.Request) {
	w.signInForm(rw, http.StatusOK, r.URL.Query().Get("next"), "")
}

func (w *Web) signInForm(rw http.ResponseWriter, status int, next, problem string) {
	if err := w.render(rw, status, "signin", page{Title: "Sign in", Error: problem, Data: local(next)}); err != nil {
		w.log.Error().Err(err).Msg("page")
	}
}

func (w *Web) signIn(rw http.ResponseWriter, r *http.Request) {
	secret, err := w.manager.SignIn(r.Context(), source(r), r.PostFormValue("name"), r.PostFormValue("password"))
	var later *server.TryLater
	switch {
	case errors.As(err, &later):
		rw.Header().Set("Retry-After", strconv.Itoa(later.Seconds()))
		w.signInForm(rw, http.StatusTooManyRequests, r.PostFormValue("next"), sentence(later))
	case errors.Is(err, server.ErrWrong):
		w.signInForm(rw, http.StatusUnauthorized, r.PostFormValue("next"), "The name or the password is wrong.")
	case err != nil:
		w.log.Error().Err(err).Msg("sign in")
		w.fail(rw, server.Identity{}, http.StatusInternalServerError, somethingFailed)
	default:
		setCookie(rw, secret, int(server.SessionLife/time.Second))
		http.Redirect(rw, r, local(r.PostFormValue("next")), http.StatusSeeOther)
	}
}

func setCookie(rw http.ResponseWriter, secret string, maxAge int) {
	http.SetCookie(rw, &http.Cookie{Name: cookieName, Value: secret, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

func (r *request) signOut() error {
	c, err := r.Cookie(cookieName)
	if err == nil {
		err = r.web.manager.SignOut(r.Context(), c.Value, r.who)
	}
	if err != nil {
		return err
	}
	setCookie(r.rw, "", -1)
	return r.to("/admin/sign-in")
}

// sentence is an error's text as a page shows it.
func sentence(err error) string {
	text := strings.TrimSuffix(err.Error(), ".")
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// claimView is what the page of the first administrator shows.
type claimView struct {
	Token string
	Taken bool // an administrator exists already
}

func (w *Web) claimPage(rw http.ResponseWriter, r *http.Request) {
	w.claimForm(rw, r, http.StatusOK, r.URL.Query().Get("token"), "")
}

// claimForm shows the form, or the way to sign in once there is an administrator.
func (w *Web) claimForm(rw http.ResponseWriter, r *http.Request, status int, token, problem string) {
	open, err := w.manager.ClaimOpen(r.Context())
	if err == nil {
		err = w.render(rw, status, "claim", page{Title: "First administrator", Error: problem, Data: claimView{token, !open}})
	}
	if err != nil {
		w.log.Error().Err(err).Msg("claim")
		w.fail(rw, server.Identity{}, http.StatusInternalServerError, somethingFailed)
	}
}

func (w *Web) claim(rw http.ResponseWriter, r *http.Request) {
	name, password := r.PostFormValue("name"), r.PostFormValue("password")
	if err := w.manager.Claim(r.Context(), r.PostFormValue("token"), name, password); err != nil {
		status := http.StatusBadRequest
		var later *server.TryLater
		if errors.As(err, &later) {
			status = http.StatusTooManyRequests
			rw.Header().Set("Retry-After", strconv.Itoa(later.Seconds()))
		}
		w.claimForm(rw, r, status, r.PostFormValue("token"), sentence(err))
		return
	}
	secret, err := w.manager.SignIn(context.WithoutCancel(r.Context()), source(r), name, password)
	if err != nil {
		http.Redirect(rw, r, "/admin/sign-in", http.StatusSeeOther)
		return
	}
	setCookie(rw, secret, int(server.SessionLife/time.Second))
	http.Redirect(rw, r, "/admin/nodes", http.StatusSeeOther)
}
