package install

import (
	"context"
	"fmt"

	"github.com/bilbycast/edge-agent/systemd"
)

// makeUser returns the ids of the user. It creates the user if there is none.
func (n *Node) makeUser(ctx context.Context) (uid, gid int, err error) {
	u, g, ok := systemd.LookupUser(n.User)
	if !ok {
		group := []string{"--user-group"}
		if systemd.GroupExists(n.User) { // from an earlier user of that name, whom somebody deleted
			group = []string{"--gid", n.User}
		}
		args := append([]string{"useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"}, group...)
		if err := command(ctx, append(args, n.User)...); err != nil {
			return 0, 0, fmt.Errorf("%w (create the user %s yourself, and run this again)", err, n.User)
		}
		if u, g, ok = systemd.LookupUser(n.User); !ok {
			return 0, 0, fmt.Errorf("useradd created the user %s, but the user database does not have it: see getent passwd %[1]s", n.User)
		}
		n.madeUser = true
		n.report("created the user %s", n.User)
	}
	if u == 0 {
		return 0, 0, fmt.Errorf("the user %s has the uid of root; the service must not run as root", n.User)
	}
	return int(u), int(g), nil
}
