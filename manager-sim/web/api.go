package web

import (
	"errors"
	"net/http"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// newClient returns a client of the API that h serves. It calls h in this process. The
// context of a call has the identity of the person who is signed in.
func newClient(h http.Handler) *api.Client {
	return &api.Client{BaseURL: "http://manager", HTTP: &http.Client{
		Transport:     counted{api.InProcess(h)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// problem returns a refusal by a page.
func problem(status int, text string) error { return &api.Problem{Status: status, Detail: text} }

// refusalOf returns the refusal in err, by the API or by a page. Its Detail is plain.
func refusalOf(err error) (api.Problem, bool) {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok {
		return api.Problem{}, false
	}
	refusal := *p
	refusal.Detail = plain(p.Detail)
	return refusal, true
}

// reason returns the reason that an operator gave in a form.
func (r *request) reason() string { return strings.TrimSpace(r.PostFormValue("reason")) }
