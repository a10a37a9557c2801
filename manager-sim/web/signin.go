package web

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path"
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
	switch {
	case errors.Is(err, server.ErrLocked):
		w.signInForm(rw, http.StatusTooManyRequests, r.PostFormValue("next"), "Too many failed attempts. Wait a minute.")
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

// claimView is what the page of the first administrator shows.
type claimView struct {
	Token string
	Taken bool // somebody can sign in already
}

func (w *Web) claimPage(rw http.ResponseWriter, r *http.Request) {
	w.claimForm(rw, r, http.StatusOK, r.URL.Query().Get("token"), "")
}

func (w *Web) claimForm(rw http.ResponseWriter, r *http.Request, status int, token, problem string) {
	users, err := w.manager.Store.Users(r.Context())
	if err == nil {
		err = w.render(rw, status, "claim", page{Title: "First administrator", Error: problem, Data: claimView{token, len(users) > 0}})
	}
	if err != nil {
		w.log.Error().Err(err).Msg("page")
		w.fail(rw, server.Identity{}, http.StatusInternalServerError, somethingFailed)
	}
}

func (w *Web) claim(rw http.ResponseWriter, r *http.Request) {
	name, password := r.PostFormValue("name"), r.PostFormValue("password")
	if err := w.manager.Claim(r.Context(), r.PostFormValue("token"), name, password); err != nil {
		w.claimForm(rw, r, http.StatusBadRequest, r.PostFormValue("token"), err.Error())
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
