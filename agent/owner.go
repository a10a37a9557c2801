package agent

import (
	"fmt"
	"os"
)

// reportOwner reports if this process is not the owner of the install root. A program that
// links the agent decides itself whom it runs as, so nothing else happens: files of root
// would lock the owner out, and another user can change nothing.
func (a *Agent) reportOwner() {
	owner, err := a.c.Layout.Owner()
	if uid := os.Geteuid(); err == nil && int(owner) != uid {
		problem := "this process is not the owner of the install root " + a.c.Layout.Root()
		const remedy = "run it as that user (User= of the unit), or give the root to the user of this process; edge-agent doctor has the command"
		a.log.Warn(problem+": "+remedy, "uid", uid, "owner", owner)
		a.warn(fmt.Sprintf("%s (uid %d, owner %d)", problem, uid, owner), remedy)
	}
}
