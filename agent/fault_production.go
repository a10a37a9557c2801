//go:build !sim

package agent

import "context"

// misbehave does nothing: only a simulation build has faults to order.
func misbehave(context.Context, *Agent) error { return nil }
