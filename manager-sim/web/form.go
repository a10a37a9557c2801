package web

import (
	"errors"
	"net"
	"net/http"

	"github.com/bilbycast/edge-agent/manager-sim/server"
)

// readForm reads the form of a POST request, before anything is done. A form
// that does not arrive whole is the browser's fault.
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
		return &apiError{status: http.StatusRequestEntityTooLarge, text: "The form is too large."}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &apiError{status: http.StatusRequestTimeout, text: "The form did not arrive in time. Send it again."}
	}
	return &apiError{status: http.StatusBadRequest, text: "The form did not arrive whole, or is not readable. Send it again."}
}

// parsed reads the form, or answers why not.
func (w *Web) parsed(rw http.ResponseWriter, r *http.Request) bool {
	err := readForm(r)
	var api *apiError
	if errors.As(err, &api) {
		w.fail(rw, server.Identity{}, api.status, api.text)
	}
	return err == nil
}

// gone answers a request that its browser gave up, for whoever is between.
func (w *Web) gone(rw http.ResponseWriter) {
	w.log.Debug().Msg("browser closed the connection before the answer")
	w.fail(rw, server.Identity{}, http.StatusBadRequest, "The browser ended the request.")
}
