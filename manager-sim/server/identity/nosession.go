package identity

import "github.com/bilbycast/edge-agent/manager-sim/store"

// ErrNoSession means that no open session has the secret.
var ErrNoSession = store.ErrNotFound
