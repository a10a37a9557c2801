//go:build !sim

package cert

import "time"

// deviceTime returns what this device's clock shows.
func deviceTime() time.Time { return time.Now() }
