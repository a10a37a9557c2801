package agent

import (
	"fmt"
	"regexp"
	"sync"
	"time"
)

// Connection is the state of the link to the manager. A running agent reports
// it in STATUS=, where `systemctl status` and ParseConnection find it.
type Connection struct {
	Connected bool      `json:"connected"`
	URL       string    `json:"url,omitempty"`
	Since     time.Time `json:"since,omitzero"`    // when the link came up, or was lost; STATUS= has it to the second
	Problem   string    `json:"problem,omitempty"` // the last error; empty while connected
}

func (c Connection) String() string {
	since := c.Since.UTC().Format(time.RFC3339)
	if c.Connected {
		return fmt.Sprintf("connected to %s since %s", c.URL, since)
	}
	return fmt.Sprintf("not connected to %s since %s: %s", c.URL, since, c.Problem)
}

// connections matches what String writes, at the end of a status text.
var connections = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(^|; )(not )?connected to (\S+) since ([0-9TZ:-]{20})(?:: (.*))?$`)
})

// ParseConnection finds the connection in the StatusText of a unit. It returns false
// if the text has none, as that of an earlier version.
func ParseConnection(status string) (Connection, bool) {
	m := connections().FindStringSubmatch(status)
	if m == nil {
		return Connection{}, false
	}
	since, err := time.Parse(time.RFC3339, m[4])
	if err != nil {
		return Connection{}, false
	}
	return Connection{Connected: m[2] == "", URL: m[3], Since: since, Problem: m[5]}, true
}

// unables matches why upgrades are not possible; the connection, NoManager or nothing
// follows.
var unables = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?:^|; )` + noUpgrades + `(.*?)(?:; (?:not )?connected to .*|; ` + NoManager + `)?$`)
})

// ParseUnable finds in the StatusText of a unit why the node refuses upgrades. It
// returns "" if the node accepts them, or does not say.
func ParseUnable(status string) string {
	m := unables().FindStringSubmatch(status)
	if m == nil {
		return ""
	}
	return m[1]
}
