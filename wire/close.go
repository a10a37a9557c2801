package wire

import (
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// CloseTryLater is the close code with which a manager refuses a node for now. Its
// reason ends with the time to wait, as TryLater writes it, and the node waits that
// long. Like an answer 503, it is no verdict on the node's version. After an AuthError
// in the same session, the code makes that refusal temporary, too.
const CloseTryLater = 4029

// maxCloseReason is the most bytes in the reason of a close frame (RFC 6455).
const maxCloseReason = 123

// TryLater returns the reason of a close frame: why, shortened if needed, and how long
// to wait, rounded up to whole seconds.
func TryLater(why string, wait time.Duration) string {
	end := fmt.Sprintf("; try again in %d s", max(1, int((wait+time.Second-1)/time.Second)))
	return why[:min(len(why), maxCloseReason-len(end))] + end
}

var tryLater = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`try again in ([0-9]{1,6}) s$`) })

// ParseTryLater returns the time to wait in a reason that TryLater wrote, and 0 for any
// other reason.
func ParseTryLater(reason string) time.Duration {
	m := tryLater().FindStringSubmatch(reason)
	if m == nil {
		return 0
	}
	secs, _ := strconv.Atoi(m[1]) // six digits
	return time.Duration(secs) * time.Second
}
