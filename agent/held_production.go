//go:build !sim

package agent

import "time"

// heldFor is how long an authenticated connection must last to prove a link.
const heldFor = 10 * time.Second
