package server

import "github.com/bilbycast/edge-agent/manager-sim/store"

// ErrNoSession is the error of SessionIdentity for a secret that is no open session's.
var ErrNoSession = store.ErrNotFound
