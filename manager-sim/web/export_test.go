package web

import (
	"net/http"

	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/rs/zerolog"
)

// NewBefore returns the pages of m over another API.
func NewBefore(m *server.Server, api http.Handler) (*Web, error) {
	w, err := New(m, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	w.api = api
	return w, nil
}
