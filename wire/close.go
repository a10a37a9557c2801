package wire

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// CloseTryLater is the code of the close frame with which a manager refuses a node
// for now. Its reason ends with the time to wait, as TryLater writes it. The node
// waits that long; like an answer 503, it says nothing about the node's version.
// After an AuthError in the same session the code says the same of that refusal.
const CloseTryLater = 4029

// maxCloseReason is how many bytes the reason of a close frame has (RFC 6455).
const maxCloseReason = 123

// TryLater returns the reason of a close frame: why, and how long to wait.
func TryLater(why string, wait time.Duration) string {
	end := fmt.Sprintf("; try again in %d s", max(1, int((wait+time.Second-1)/time.Second)))
	return why[:min(len(why), maxCloseReason-len(end))] + end
}

var tryLater = regexp.MustCompile(`try again in ([0-9]{1,6}) s$`)

// ParseTryLater returns how long a reason asks to wait; 0 if it does not say.
func ParseTryLater(reason string) time.Duration {
	m := tryLater.FindStringSubmatch(reason)
	if m == nil {
		return 0
	}
	secs, _ := strconv.Atoi(m[1]) // six digits
	return time.Duration(secs) * time.Second
}
