//go:build !sim

package agent

import "context"

// injectFault does nothing: only a simulation build has faults to order.
func injectFault(context.Context, *Agent) error { return nil }
