package web

import (
	"net/http"

	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/rs/zerolog"
)

// NewBefore returns the pages of m with another API.
func NewBefore(m *server.Server, handler http.Handler) (*Web, error) {
	w, err := New(m, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	w.handler, w.api = handler, newClient(handler)
	return w, nil
}
