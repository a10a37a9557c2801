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

	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
)

func source(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// local returns the page to open after a sign-in: next if that is a page of this manager,
// otherwise the page of nodes.
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
		w.log.Error().Err(err).Msg("sign-in page was not rendered")
	}
}

func (w *Web) signIn(rw http.ResponseWriter, r *http.Request) {
	if !w.parsed(rw, r) {
		return
	}
	secret, err := w.people.SignIn(r.Context(), source(r), r.PostFormValue("name"), r.PostFormValue("password"))
	var later *limit.TryLater
	switch {
	case errors.As(err, &later):
		rw.Header().Set("Retry-After", strconv.Itoa(later.Seconds()))
		w.signInForm(rw, http.StatusTooManyRequests, r.PostFormValue("next"), sentence(later))
	case errors.Is(err, identity.ErrWrong):
		w.signInForm(rw, http.StatusUnauthorized, r.PostFormValue("next"), "The name or the password is wrong.")
	case err != nil && r.Context().Err() != nil:
		w.failAborted(rw)
	case err != nil:
		w.failed(rw, identity.Identity{}, err, "sign-in failed")
	default:
		setCookie(rw, secret, int(identity.SessionLife/time.Second))
		http.Redirect(rw, r, local(r.PostFormValue("next")), http.StatusSeeOther)
	}
}

func setCookie(rw http.ResponseWriter, secret string, maxAge int) {
	http.SetCookie(rw, &http.Cookie{Name: cookieName, Value: secret, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

func (r *request) signOut() error {
	c, err := r.Cookie(cookieName)
	if err == nil {
		err = r.web.people.SignOut(r.Context(), c.Value, r.who)
	}
	if err != nil {
		return err
	}
	setCookie(r.rw, "", -1)
	return r.to("/admin/sign-in")
}

// linkUsed is shown with the sign-in form if the link for the first administrator was
// used.
const linkUsed = "This link was used: an administrator exists. Sign in."

// sentence returns an error's text as a sentence.
func sentence(err error) string {
	text := strings.TrimSuffix(err.Error(), ".")
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// claimPage shows the form for the first administrator, or the sign-in page if there is
// one.
func (w *Web) claimPage(rw http.ResponseWriter, r *http.Request) {
	open, err := w.people.ClaimOpen(r.Context())
	if err != nil {
		w.failed(rw, identity.Identity{}, err, "claim page failed")
		return
	}
	if !open {
		w.signInForm(rw, http.StatusOK, "", linkUsed)
		return
	}
	w.claimForm(rw, http.StatusOK, r.URL.Query().Get("token"), "")
}

func (w *Web) claimForm(rw http.ResponseWriter, status int, token, problem string) {
	if err := w.render(rw, status, "claim", page{Title: "First administrator", Error: problem, Data: token}); err != nil {
		w.log.Error().Err(err).Msg("claim page was not rendered")
	}
}

func (w *Web) claim(rw http.ResponseWriter, r *http.Request) {
	if !w.parsed(rw, r) {
		return
	}
	name, password := r.PostFormValue("name"), r.PostFormValue("password")
	err := w.people.Claim(r.Context(), r.PostFormValue("token"), name, password)
	var later *limit.TryLater
	switch open, _ := w.people.ClaimOpen(r.Context()); {
	case err == nil:
	case errors.As(err, &later):
		rw.Header().Set("Retry-After", strconv.Itoa(later.Seconds()))
		w.claimForm(rw, http.StatusTooManyRequests, r.PostFormValue("token"), sentence(later))
		return
	case errors.Is(err, identity.ErrClaim) && !open:
		w.signInForm(rw, http.StatusBadRequest, "", linkUsed)
		return
	case identity.Mistake(err):
		w.claimForm(rw, http.StatusBadRequest, r.PostFormValue("token"), sentence(err))
		return
	case r.Context().Err() != nil:
		w.failAborted(rw)
		return
	default:
		w.failed(rw, identity.Identity{}, err, "claim failed")
		return
	}
	secret, err := w.people.SignIn(context.WithoutCancel(r.Context()), source(r), name, password)
	if err != nil {
		http.Redirect(rw, r, "/admin/sign-in", http.StatusSeeOther)
		return
	}
	setCookie(rw, secret, int(identity.SessionLife/time.Second))
	http.Redirect(rw, r, "/admin/nodes", http.StatusSeeOther)
}
