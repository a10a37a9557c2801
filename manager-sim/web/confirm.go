package web

import "net/http"

// confirmation is a page that describes the effects of an action and asks for a reason.
// The action itself is a POST to Action.
type confirmation struct {
	Title, Nav     string
	Effects        []string
	Action, Button string
	Cancel         string // the page to return to
	Reason         string // given before the API refused the action
}

// confirm shows the page. With a refusal it shows the page again, after the API refused
// the action.
func (r *request) confirm(refusal error, c confirmation) error {
	if r.Method == http.MethodPost {
		c.Reason = r.PostFormValue("reason")
	}
	if refusal != nil {
		return r.refused(refusal, "confirm", c.Title, c.Nav, c)
	}
	return r.show("confirm", c.Title, c.Nav, false, c)
}
