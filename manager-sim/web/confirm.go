package web

import "net/http"

// confirmation is a page that says what an act will do, and asks for a reason.
// The act itself is a POST to Action.
type confirmation struct {
	Title, Nav     string
	Effects        []string
	Action, Button string
	Cancel         string // the page to return to
	Reason         string // that the operator gave before the API refused
}

// confirm shows the page; with a problem, again after the API refused the act.
func (r *request) confirm(problem error, c confirmation) error {
	if r.Method == http.MethodPost {
		c.Reason = r.PostFormValue("reason")
	}
	if problem != nil {
		return r.refused(problem, "confirm", c.Title, c.Nav, c)
	}
	return r.show("confirm", c.Title, c.Nav, false, c)
}
