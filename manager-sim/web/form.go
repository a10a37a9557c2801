package web

import (
	"errors"
	"net"
	"net/http"

	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
)

// readForm reads the form of a POST request. An incomplete form is a refusal.
func readForm(r *http.Request) error {
	if r.Method != http.MethodPost {
		return nil
	}
	err := r.ParseForm()
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return problem(http.StatusRequestEntityTooLarge, "The form is too large.")
	case errors.As(err, &timeout) && timeout.Timeout():
		return problem(http.StatusRequestTimeout, "The form did not arrive in time. Send it again.")
	}
	return problem(http.StatusBadRequest, "The form is incomplete or unreadable. Send it again.")
}

// parsed reads the form. It answers the request and returns false if the form is refused.
func (w *Web) parsed(rw http.ResponseWriter, r *http.Request) bool {
	err := readForm(r)
	if refusal, ok := refusalOf(err); ok {
		w.fail(rw, identity.Identity{}, refusal.Status, refusal.Detail)
	}
	return err == nil
}

// failAborted answers a request that its browser ended; a proxy may still read the answer.
func (w *Web) failAborted(rw http.ResponseWriter) {
	w.log.Debug().Msg("browser closed the connection before the answer")
	w.fail(rw, identity.Identity{}, http.StatusBadRequest, "The browser ended the request.")
}
